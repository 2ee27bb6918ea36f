package configuration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/containerd/errdefs"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/object"
)

// Options are the choices of an Apply.
type Options struct {
	By     string        // the client's name
	DryRun bool          // tell, but change nothing
	Within time.Duration // in which Confirm must be called; 0 means DefaultTrial
}

// Apply makes machine the node's: it is stored, and the daemon is to start again with it. Unless Confirm is
// called within the given time the node returns to what it has now, also after a crash or a power cut. What
// the manifest leaves out of the node's identity stays as it is. It returns ErrInvalidArgument for what this
// node cannot be, and ErrOnTrial while an earlier change is on trial.
func (s *Store) Apply(machine *object.Machine, o Options) (Result, error) {
	if o.Within == 0 {
		o.Within = DefaultTrial
	}
	if o.Within < MinTrial || o.Within > MaxTrial {
		return Result{}, fmt.Errorf("%w: a trial takes %s to %s, got %s", errdefs.ErrInvalidArgument, MinTrial, MaxTrial, o.Within)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trial != nil {
		return Result{}, ErrOnTrial
	}
	if err := s.complete(machine); err != nil {
		return Result{}, err
	}
	result := Result{Revision: s.history[len(s.history)-1].Number, Changes: Diff(s.machine, machine), Within: o.Within}
	if len(result.Changes) == 0 || o.DryRun {
		return result, nil
	}
	before, err := json.Marshal(s.machine)
	if err != nil {
		return Result{}, err
	}
	raw, err := json.Marshal(machine)
	if err != nil {
		return Result{}, err
	}
	old := s.history
	result.Revision = s.add(Revision{At: time.Now(), By: o.By, Changes: result.Changes, Machine: raw})
	s.trial = &trial{Number: result.Revision, Within: o.Within}
	// In this order: whenever the power fails, the Machine file is the one before,
	// or a trial that ends with it.
	if err := s.store(before, raw); err != nil {
		s.history = old
		return Result{}, errors.Join(fmt.Errorf("store the Machine: %w", err), s.restore())
	}
	s.askRestart()
	return result, nil
}

func (s *Store) store(before, raw []byte) error {
	// One that an earlier trial has left would be returned to.
	if err := durable.Remove(s.beforeFile()); err != nil {
		return err
	}
	if err := s.write(s.historyFile(), s.history); err != nil {
		return err
	}
	if err := durable.WriteFile(s.beforeFile(), before, 0o600); err != nil {
		return err
	}
	if err := s.write(s.trialFile(), s.trial); err != nil {
		return err
	}
	return s.setMachine(raw)
}

// restore undoes a store that failed half-way. While it can't, the trial stays,
// and ends with the Machine before.
func (s *Store) restore() error {
	if err := s.putBack(); err != nil {
		return err
	}
	s.trial = nil
	return errors.Join(durable.Remove(s.trialFile()), s.write(s.historyFile(), s.history))
}

// putBack makes the Machine before the trial the node's. It is that already where
// an earlier call was cut short, or where Apply did not get as far.
func (s *Store) putBack() error {
	if err := durable.Rename(s.beforeFile(), s.paths.Machine); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("return to the Machine before: %w", err)
	}
	return nil
}

// setMachine writes the Machine file, and notes before which given one it replaces:
// without the note the file does not count.
func (s *Store) setMachine(raw []byte) error {
	if digest := s.paths.givenDigest(); digest != "" {
		if err := durable.WriteFile(s.paths.replaced(), []byte(digest), 0o600); err != nil {
			return err
		}
	}
	return durable.WriteFile(s.paths.Machine, raw, 0o600)
}

// complete checks a Machine against the node, and gives it the node's identity where it has none.
func (s *Store) complete(machine *object.Machine) error {
	is, was := &machine.Spec.API, &s.machine.Spec.API
	if machine.Metadata.Name != s.machine.Metadata.Name {
		return fmt.Errorf("%w: metadata.name: this node is %s, as its certificate says: the manifest of %s is for another one", errdefs.ErrInvalidArgument, s.machine.Metadata.Name, machine.Metadata.Name)
	}
	if is.CA != was.CA {
		return fmt.Errorf("%w: spec.api.ca: is not this node's authority, and only its admins may configure the node: to change the authority, install the node again", errdefs.ErrInvalidArgument)
	}
	if is.Key == "" && (is.Certificate == "" || is.Certificate == was.Certificate) {
		is.Key, is.Certificate = was.Key, was.Certificate
	}
	if is.Key != was.Key || is.Certificate != was.Certificate {
		return fmt.Errorf("%w: spec.api.certificate and spec.api.key: leave them out, the node keeps its own", errdefs.ErrInvalidArgument)
	}
	if is.JoinToken == "" {
		is.JoinToken = was.JoinToken
	}
	if s.check != nil {
		if err := s.check(machine); err != nil {
			return fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
		}
	}
	return nil
}

// Return applies an earlier revision. It returns ErrNotFound where there is none of that number.
func (s *Store) Return(number int, o Options) (Result, error) {
	_, machine, err := s.Revision(number)
	if err != nil {
		return Result{}, err
	}
	again := *machine
	return s.Apply(&again, o)
}

// Confirm keeps the change that is on trial. number is its revision; it returns ErrNoTrial for another.
func (s *Store) Confirm(number int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trial == nil || s.trial.Number != number {
		return ErrNoTrial
	}
	if !s.trial.Started {
		return fmt.Errorf("the daemon has not started with revision %d yet: %w", number, errdefs.ErrUnavailable)
	}
	if err := durable.Remove(s.trialFile()); err != nil {
		return fmt.Errorf("confirm: %w", err)
	}
	s.trial = nil
	if err := durable.Remove(s.beforeFile()); err != nil {
		s.log.Warn("remove the Machine before", "error", err)
	}
	s.log.Info("the Machine's change is confirmed", "revision", number)
	return nil
}

// OnTrial returns the revision that waits for Confirm, 0 for none.
func (s *Store) OnTrial() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trial == nil {
		return 0
	}
	return s.trial.Number
}

// Watch takes a change on trial back when its time is over. It returns when nothing is on trial any more
// after that time, or when ctx ends.
func (s *Store) Watch(ctx context.Context) error {
	s.mu.Lock()
	on := s.trial
	s.mu.Unlock()
	if on == nil || !on.Started {
		return nil
	}
	timer := time.NewTimer(on.Within)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-timer.C:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trial == nil || s.trial.Number != on.Number {
		return nil
	}
	if err := s.takeBack(fmt.Sprintf("it was not confirmed within %s", on.Within)); err != nil {
		return err
	}
	s.askRestart()
	return nil
}

// takeBack returns to the Machine before the trial; the caller holds mu, or is Open.
func (s *Store) takeBack(why string) error {
	on := s.trial
	before, _ := os.ReadFile(s.beforeFile()) // only for the history
	if err := s.putBack(); err != nil {
		return err
	}
	for i := range s.history {
		if s.history[i].Number == on.Number {
			s.history[i].Note = "rolled back: " + why
		}
	}
	if len(before) > 0 {
		s.add(Revision{At: time.Now(), Note: fmt.Sprintf("revision %d was rolled back: %s", on.Number, why), Machine: before})
	}
	if err := durable.Remove(s.trialFile()); err != nil {
		return fmt.Errorf("end the trial of the Machine: %w", err)
	}
	s.trial = nil
	if err := s.write(s.historyFile(), s.history); err != nil {
		s.log.Warn("note that the Machine was taken back", "error", err)
	}
	s.log.Warn("a change of the Machine is taken back", "revision", on.Number, "reason", why)
	return nil
}

// askRestart is called once at most: a daemon that was asked starts again.
func (s *Store) askRestart() {
	select {
	case <-s.restart:
	default:
		close(s.restart)
	}
}
