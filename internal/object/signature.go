package object

import (
	"fmt"

	"oscine.dev/oscine/internal/signature"
)

// maxSigners bounds the keys of one list.
const maxSigners = 16

func checkSignedBy(c *Checker, at string, keys []string) {
	if len(keys) > maxSigners {
		c.Bad(at, "has %d entries, at most %d are accepted", len(keys), maxSigners)
		return
	}
	for i, key := range keys {
		if _, err := signature.ParseKeys(key); err != nil {
			c.Bad(fmt.Sprintf("%s[%d]", at, i), "%v", err)
		}
	}
}
