package licence

import (
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// covered is how much of a text, in percent of its words, must be that of known
// licences for the rest to be taken as titles and names of owners.
const covered = 75

// recognise returns the terms that a text states. Where known licences cover
// too little of it, the text itself stays beside those that were found.
func recognise(name, text string) terms {
	found, enough := scan(text)
	if !enough {
		found = append(found, reference(name, text))
	}
	return join(and, found...)
}

func scan(text string) (found []terms, enough bool) {
	c := licensecheck.Scan([]byte(text))
	enough = c.Percent >= covered
	for _, m := range c.Match {
		switch {
		case m.IsURL: // says where terms are, not that they apply
		case slices.Contains(offList(), m.ID):
			found = append(found, reference(m.ID, text[m.Start:m.End]))
		default:
			found = append(found, terms{id: onlyVersion(m.ID)})
		}
	}
	return found, enough && len(found) > 0
}

// offList are the names by which licensecheck knows what SPDX does not list.
func offList() []string {
	return []string{
		"Aladdin-9", "Anti996", "BSD-1-Clause-Clear", "BSD-3-Clause-NoTrademark", "CommonsClause", "CC-BY-NC-SA-3.0-US",
		"GPL-2.0-or-3.0", "LGPL-2.0-or-3.0", "GooglePatentClause", "GooglePatentsFile", "MIT-NoAd", "Prosperity-3.0.0",
	}
}

// onlyVersion takes the whole text of a licence, which does not say whether later
// versions may be taken, as a grant of this version alone.
func onlyVersion(id string) string {
	switch id {
	case "AGPL-1.0", "AGPL-3.0", "GPL-1.0", "GPL-2.0", "GPL-3.0", "LGPL-2.0", "LGPL-2.1", "LGPL-3.0", "GFDL-1.1", "GFDL-1.2", "GFDL-1.3":
		return id + "-only"
	}
	return id
}

// known returns the one licence that a text is, or false.
func known(text string) (terms, bool) {
	found, enough := scan(text)
	t := join(and, found...)
	return t, enough && t.id != "" && !strings.HasPrefix(t.id, "LicenseRef-")
}
