package cli

import (
	"encoding/csv"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// optionFlag is the flag --option NAME=VALUE, which may be repeated, or name several
// separated by commas. An option that is given two values is refused.
type optionFlag map[string]string

// Set implements pflag.Value.
func (o *optionFlag) Set(text string) error {
	pairs := []string{text}
	if strings.Count(text, "=") > 1 {
		var err error
		if pairs, err = csv.NewReader(strings.NewReader(text)).Read(); err != nil {
			return err
		}
	}
	if *o == nil {
		*o = optionFlag{}
	}
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return fmt.Errorf("%s must be written NAME=VALUE", pair)
		}
		if before, given := (*o)[name]; given && before != value {
			return fmt.Errorf("%s is given two values, %s and %s: leave out one of them", name, before, value)
		}
		(*o)[name] = value
	}
	return nil
}

// String implements pflag.Value.
func (o *optionFlag) String() string {
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(*o)) {
		pairs = append(pairs, name+"="+(*o)[name])
	}
	return strings.Join(pairs, ",")
}

// Type implements pflag.Value.
func (*optionFlag) Type() string { return "NAME=VALUE" }
