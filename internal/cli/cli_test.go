package cli

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// -update rewrites the expected output inside the scripts.
var updateGolden = flag.Bool("update", false, "rewrite the golden output of the scripts")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"oscine": func() { os.Exit(Run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// TestScripts runs every testdata/script/*.txtar against the real commands.
func TestScripts(t *testing.T) {
	data, err := filepath.Abs("../../../shared/data")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *updateGolden,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("XDG_CONFIG_HOME", "")
			env.Setenv("SHARED_DATA", data)
			return nil
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "shared":
				_, err := os.Stat(data)
				return err == nil, nil
			case "root":
				return os.Geteuid() == 0, nil
			}
			return false, os.ErrInvalid
		},
	})
}
