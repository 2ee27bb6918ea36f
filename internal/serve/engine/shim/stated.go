package shim

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/tensor"
)

var specRE = regexp.MustCompile(`^([A-Za-z0-9_][A-Za-z0-9_.:/-]{0,99}):([A-Z0-9]+)\[([0-9,-]*)\]$`)

// ParseSpecs reads what a Model's option states of inputs or outputs, in their
// order and separated by spaces: "sound:FP32[-1,512] rate:INT64[]". A dimension of
// -1 is open. "" states nothing.
func ParseSpecs(text string) ([]tensor.Spec, error) {
	var specs []tensor.Spec
	for field := range strings.FieldsSeq(text) {
		spec, err := parseSpec(field)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", field, err)
		}
		if tensor.Find(specs, spec.Name) >= 0 {
			return nil, fmt.Errorf("%q: there is another of that name", field)
		}
		if specs = append(specs, spec); len(specs) > channel.MaxTensors {
			return nil, fmt.Errorf("more than %d are stated", channel.MaxTensors)
		}
	}
	return specs, nil
}

func parseSpec(field string) (tensor.Spec, error) {
	parts := specRE.FindStringSubmatch(field)
	if parts == nil {
		return tensor.Spec{}, errors.New("must be NAME:TYPE[DIMENSION,…] without spaces, such as sound:FP32[-1,512]")
	}
	spec := tensor.Spec{Name: parts[1], Shape: tensor.Shape{}}
	var err error
	if spec.Type, err = tensor.ParseDataType(parts[2]); err != nil {
		return spec, err
	}
	if elementOf(spec.Type) < 0 {
		return spec, fmt.Errorf("PyTorch has no elements of %s", spec.Type)
	}
	if parts[3] == "" {
		return spec, nil
	}
	for dim := range strings.SplitSeq(parts[3], ",") {
		d, err := strconv.ParseInt(dim, 10, 32)
		if err != nil || d < -1 {
			return spec, fmt.Errorf("the dimension %q is neither a size nor -1", dim)
		}
		spec.Shape = append(spec.Shape, d)
	}
	if len(spec.Shape) > tensor.MaxRank {
		return spec, fmt.Errorf("has %d dimensions, at most %d can be served", len(spec.Shape), tensor.MaxRank)
	}
	return spec, nil
}

// agree refuses what is stated of a tensor and is not so by the format. Where that
// has only upper bounds, a dimension may be stated as open or smaller.
func agree(stated, told tensor.Spec, open bool) error {
	ok := stated.Type == told.Type && len(stated.Shape) == len(told.Shape)
	for i := range told.Shape {
		ok = ok && (stated.Shape[i] == told.Shape[i] || open && stated.Shape[i] < told.Shape[i])
	}
	if ok {
		return nil
	}
	limit := "the model has"
	if open {
		limit = "the model has at most"
	}
	return fmt.Errorf("%s:%s%s, %s %s%s", stated.Name, stated.Type, stated.Shape, limit, told.Type, told.Shape)
}
