package licence

import (
	"errors"
	"strings"
)

// OfCopyright returns the licence of a Debian package by the text of its
// copyright file, at most 4 MiB. The file describes the whole source package, so
// that the expression joins the terms of all its files, those that only build or
// test it too: it promises too little rather than too much.
func OfCopyright(text string) (Licence, error) {
	c, err := parseCopyright(text)
	if errors.Is(err, errNotDEP5) {
		return recognise("copyright file", text).licence(), nil
	}
	if err != nil {
		return Licence{}, err
	}
	return c.terms().licence(), nil
}

func (c *copyrightFile) terms() terms {
	files := c.files
	if len(files) == 0 {
		files = []grant{{synopsis: c.header}}
	}
	var all []terms
	for _, g := range files {
		all = append(all, resolve(g.synopsis, func(name string) string {
			if text, ok := c.texts[strings.ToLower(name)]; ok {
				return text
			}
			return g.text
		}))
	}
	return join(and, all...)
}
