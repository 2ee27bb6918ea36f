package guest

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// WaitIdle waits until a second passes in which the processors have next to
// nothing to do: a kernel that has just booted still has.
func WaitIdle(patience time.Duration) error {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		began, before := time.Now(), idleTime()
		time.Sleep(time.Second)
		if idle := idleTime() - before; idle > time.Duration(runtime.NumCPU())*time.Since(began)*96/100 {
			return nil
		}
	}
	return errors.New("the guest's processors did not come to rest")
}

// idleTime adds up the idle time of all processors; see proc_stat(5). Its unit
// is 10 ms, USER_HZ of every architecture we run on.
func idleTime() time.Duration {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 6 {
		return 0
	}
	ticks, err := strconv.ParseInt(fields[4], 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
