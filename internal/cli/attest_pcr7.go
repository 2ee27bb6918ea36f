package cli

import (
	"fmt"

	"oscine.dev/oscine/internal/client"
)

// secureBootPCR says whether Secure Boot is on, its keys, and which of them signed what
// was started. A release does not change it, and another system cannot restore it.
const secureBootPCR = 7

// knownPCR7 is the value that a context knows for the machine whose TPM has this key;
// empty where it knows none.
func knownPCR7(ctx *client.Context, key string) string {
	if ctx.AttestationKey != key {
		return ""
	}
	return ctx.AttestationPCR7
}

// keepPCR7 has the context know the value of a node that has booted what was expected.
func keepPCR7(env *Env, name, known, value string) error {
	if known == value {
		return nil
	}
	err := env.editConfig(func(config *client.Config) error {
		_, ctx, err := config.Context(name)
		if err != nil {
			return err
		}
		ctx.AttestationPCR7 = value
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(env.Err, "PCR 7 %s is new, and known from now on\n", value)
	return nil
}

// explainPCR7 adds the next step where the value differs from the known one.
func explainPCR7(err error, value string) error {
	return fmt.Errorf("%w; the context knows PCR 7 from before: another system was started, or Secure Boot was switched, or its keys or its list of revoked ones were changed, "+
		"as a firmware update may do; if you know that it was such a change, take the new value with --pcr 7=%s", err, value)
}
