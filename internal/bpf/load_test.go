package bpf

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
)

func TestVerifiersReasonIsShown(t *testing.T) {
	// As Linux 7.2 prints it.
	refused := &ebpf.VerifierError{Cause: errors.New("invalid argument"), Log: []string{
		"223: (95) exit",
		"At callback return the register R0 has smin=0 smax=255 should have been in [0, 1]",
		"verification time 376531 usec",
		"stack depth 40+0+48+40+0 max 0",
		"insns processed 282+189",
		"processed 471 insns (limit 1000000) max_states_per_insn 3 total_states 42 peak_states 48 mark_read 0",
	}}
	if got := readable(fmt.Errorf("program x: %w", refused)).Error(); !strings.HasPrefix(got, "program x: ") || !strings.Contains(got, "should have been in [0, 1]") || strings.Contains(got, "insns") {
		t.Error(got)
	}
	figures := &ebpf.VerifierError{Cause: errors.New("invalid argument"), Log: []string{"stack depth 0"}}
	if got := readable(figures).Error(); !strings.Contains(got, "invalid argument") {
		t.Error(got)
	}
	if other := errors.New("no memory"); readable(other) != other {
		t.Errorf("got %v", readable(other))
	}
}
