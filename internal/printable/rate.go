package printable

import "strconv"

// Rate writes a number of events a second with the unit that makes it 1 or more: s,
// m for a minute or h for an hour.
func Rate(perSecond float64) (number, unit string) {
	unit = "s"
	for _, next := range []string{"m", "h"} {
		if perSecond >= 1 {
			break
		}
		perSecond, unit = perSecond*60, next
	}
	return strconv.FormatFloat(perSecond, 'g', 4, 64), unit
}
