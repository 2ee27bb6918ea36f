package cli

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestPlaceOnNoMachine(t *testing.T) {
	dir := t.TempDir()
	if _, err := readMachine(dir); err == nil || !strings.Contains(err.Error(), "--machine "+dir+": it holds neither sys nor proc") {
		t.Errorf("got %v", err)
	}
	if _, err := readMachine(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "--machine") {
		t.Errorf("got %v", err)
	}
}
