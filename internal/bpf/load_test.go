package bpf

import (
	"errors"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
)

func TestVerifiersReasonIsShown(t *testing.T) {
	// As Linux 7.2 prints it.
	refused := &ebpf.VerifierError{Cause: errors.New("invalid argument"), Log: withoutFigures([]string{
		"223: (95) exit",
		"At callback return the register R0 has smin=0 smax=255 should have been in [0, 1]",
		"verification time 376531 usec",
		"stack depth 40+0+48+40+0 max 0",
		"insns processed 282+189",
		"processed 471 insns (limit 1000000) max_states_per_insn 3 total_states 42 peak_states 48 mark_read 0",
	})}
	if got := refused.Error(); !strings.Contains(got, "should have been in [0, 1]") {
		t.Error(got)
	}
	if got := withoutFigures([]string{"stack depth 0"}); len(got) != 0 {
		t.Errorf("a log of figures alone: got %q", got)
	}
}
