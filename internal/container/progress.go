package container

import (
	"fmt"

	"github.com/containerd/containerd/v2/core/transfer"
)

// tell turns the transfer service's reports into progress lines: one when a
// layer starts, one at its end, and one per tenth in between.
func tell(line func(string)) transfer.ProgressFunc {
	tenths := map[string]int64{}
	return func(p transfer.Progress) {
		if p.Name == "" || p.Desc == nil {
			return
		}
		short := p.Desc.Digest.Encoded()
		short = short[:min(12, len(short))]
		tenth := int64(-1)
		if p.Total > 0 {
			tenth = p.Progress * 10 / p.Total
		}
		key := short + p.Event
		if last, ok := tenths[key]; ok && last >= tenth {
			return
		}
		tenths[key] = tenth
		if p.Total > 0 && p.Progress < p.Total {
			line(fmt.Sprintf("%s %s: %d of %d MB", p.Event, short, p.Progress>>20, p.Total>>20))
			return
		}
		line(fmt.Sprintf("%s %s", p.Event, short))
	}
}
