package node

import (
	"path/filepath"
	"strings"
	"testing"

	"oscine.dev/oscine/internal/node/kind/model"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/core"
)

// Sockets of objects with names of every length fit below the longest run
// folder.
func TestSocketPathsFit(t *testing.T) {
	const sunPath = 108 // bytes, with the 0 at the end
	node := &Node{config: Config{RunDir: "/" + strings.Repeat("r", maxRunDir-1)}}
	seen := map[string]bool{}
	for n := 1; n <= object.MaxName; n++ {
		dir := model.SocketDir(node.socketsDir(), object.Key{Kind: object.KindModel, Name: strings.Repeat("n", n)})
		if seen[dir] {
			t.Errorf("%s has two owners", dir)
		}
		seen[dir] = true
		if path := filepath.Join(dir, core.SocketName); len(path) >= sunPath {
			t.Errorf("a name of %d characters gives a path of %d bytes, want less than %d: %s", n, len(path), sunPath, path)
		}
	}
}
