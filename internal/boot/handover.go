package boot

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// handover is what stage 1 tells PID 1, as environment variables.
type handover struct {
	slot   slot
	data   Partition // zero when /var is volatile
	from   booted
	stage1 time.Duration
}

const (
	envSlot   = "OSCINE_SLOT"
	envDisk   = "OSCINE_DISK"
	envData   = "OSCINE_DATA"
	envImage  = "OSCINE_IMAGE"
	envStage1 = "OSCINE_STAGE1_MS"
)

func (h handover) environ() []string {
	return []string{
		envSlot + "=" + h.slot.Name,
		envDisk + "=" + h.slot.Disk,
		envData + "=" + h.data.Device,
		envImage + "=" + h.from.image,
		envStage1 + "=" + strconv.FormatInt(h.stage1.Milliseconds(), 10),
	}
}

// received is the same on PID 1's side.
type received struct {
	slot, disk, data string
	from             booted
	stage1           time.Duration
}

func receive() received {
	ms, err := strconv.ParseInt(os.Getenv(envStage1), 10, 64)
	if err != nil {
		ms = 0
	}
	return received{
		slot:   os.Getenv(envSlot),
		disk:   os.Getenv(envDisk),
		data:   os.Getenv(envData),
		from:   booted{image: os.Getenv(envImage)},
		stage1: time.Duration(ms) * time.Millisecond,
	}
}

// facts renders FactsFile.
func (r received) facts(good bool) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "slot=%s\ndisk=%s\ndata=%s\nuki=%s\n", r.slot, r.disk, r.data, r.from.image)
	fmt.Fprintf(&b, "trial=%t\ngood=%t\n", r.from.counted() && !good, good)
	fmt.Fprintf(&b, "stage1=%d\nsince_kernel_start=%d\n", r.stage1.Milliseconds(), uptime().Milliseconds())
	return []byte(b.String())
}
