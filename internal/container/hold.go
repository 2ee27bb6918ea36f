package container

import (
	"encoding/json"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// holderTarget is where a container that waits finds the program that waits: on
// a tmpfs, so that its root needs no such file.
const holderTarget = "/run/oscine/hold"

// heldArgs is the annotation with the command line, in JSON, that a container
// that waits would have run.
const heldArgs = "dev.oscine.held-args"

// hold has a container wait instead of running its program.
func hold(s *specs.Spec) error {
	args, err := json.Marshal(s.Process.Args)
	if err != nil {
		return fmt.Errorf("encode the command line: %w", err)
	}
	s.Annotations = map[string]string{heldArgs: string(args)}
	s.Process.Args = []string{holderTarget, "hold"}
	return nil
}

// held is the command line that a container would have run, nil for one that
// does not wait.
func held(s *specs.Spec) []string {
	var args []string
	if text := s.Annotations[heldArgs]; text != "" {
		_ = json.Unmarshal([]byte(text), &args) // hold wrote it
	}
	return args
}
