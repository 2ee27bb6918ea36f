package rpc

import (
	"errors"
	"testing"

	"oscine.dev/oscine/internal/serve/front"
)

// One client opens streams as it likes, and takes none from another.
func TestStreamsOfAClientAreBounded(t *testing.T) {
	s := streams{open: map[string]int{}}
	var leave func()
	for range maxClientStreams {
		var err error
		if leave, err = s.enter("192.0.2.1"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.enter("192.0.2.1"); !errors.Is(err, front.ErrBusy) {
		t.Errorf("one more: got %v", err)
	}
	if _, err := s.enter("192.0.2.2"); err != nil {
		t.Errorf("another client: got %v", err)
	}
	leave()
	if _, err := s.enter("192.0.2.1"); err != nil {
		t.Errorf("after one has ended: got %v", err)
	}
}
