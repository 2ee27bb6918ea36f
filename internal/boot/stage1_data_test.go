package boot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What opens the data partition either names its node or gives a reason, however it ends.
func TestRunOpenData(t *testing.T) {
	for name, test := range map[string]struct{ script, node, want string }{
		"opens":              {`echo "/dev/dm-1"`, "/dev/dm-1", ""},
		"refuses":            {`echo "more; the TPM was cleared"; exit 1`, "", "the TPM was cleared"},
		"refuses in silence": {`exit 3`, "", "exit status 3"},
		"says nothing":       {`exit 0`, "", "exit status 0"},
		"says another thing": {`echo hello`, "", "hello"},
		"is killed":          {`kill -9 $$`, "", "ended by a signal: killed"},
		"is killed later":    {`echo /dev/dm-1; kill -9 $$`, "", "ended by a signal: killed"},
	} {
		node, err := runOpenData(programOf(t, test.script), "/dev/vda4", time.Minute)
		if node != test.node || (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %q, %v", name, node, err)
		}
	}
	if _, err := runOpenData(filepath.Join(t.TempDir(), "none"), "/dev/vda4", time.Minute); err == nil {
		t.Error("no such program: got no error")
	}
}

// Stage 1 goes on although what it has killed does not end: here a child of it keeps
// the pipe open.
func TestRunOpenDataHangs(t *testing.T) {
	began := time.Now()
	_, err := runOpenData(programOf(t, "sleep 20; true"), "/dev/vda4", 10*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "more than 10ms") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
}

func programOf(t *testing.T, script string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return file
}
