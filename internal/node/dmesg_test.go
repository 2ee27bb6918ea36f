package node

import (
	"strings"
	"testing"
	"time"
)

func TestParseKernelRecord(t *testing.T) {
	booted := time.Unix(1_000_000, 0)
	for record, want := range map[string]LogLine{
		"6,339,5140900,-;NET: Registered protocol family 10\n SUBSYSTEM=net\n": {booted.Add(5140900 * time.Microsecond), "info", "NET: Registered protocol family 10"},
		"30,340,1,-;oscine: slot a\n":                                          {booted.Add(time.Microsecond), "info", "oscine: slot a"},
		"3,1,0,c;disk failed":                                                  {booted, "err", "disk failed"},
	} {
		got, ok := parseKernelRecord(record, booted)
		if !ok || got != want {
			t.Errorf("%q: got %+v, %v, want %+v", record, got, ok, want)
		}
	}
	for _, record := range []string{"", "x", "6,1;text", "a,b,c;text", "-1,1,1;x", "6,1,-1;x"} {
		if got, ok := parseKernelRecord(record, booted); ok {
			t.Errorf("%q: got %+v, want it refused", record, got)
		}
	}
}

func FuzzKernelRecord(f *testing.F) {
	for _, record := range []string{"6,1,5,-;hello\n", "6,1,9223372036854775807,-;x", "6,339,5140900,-;NET: Registered\n SUBSYSTEM=net\n", "-1,0,0;", ";", "8,2,3,-;oscine-init: started\n"} {
		f.Add(record)
	}
	f.Fuzz(func(t *testing.T, record string) {
		line, ok := parseKernelRecord(record, time.Unix(0, 0))
		if ok && (strings.Contains(line.Text, "\n") || line.Time.Before(time.Unix(0, 0))) {
			t.Errorf("%q was read as %+v", record, line)
		}
		parseInitRecord(record, time.Unix(0, 0))
		sequence(record)
	})
}
