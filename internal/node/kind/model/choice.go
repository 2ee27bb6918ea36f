package model

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pack"
	"oscine.dev/oscine/internal/serve/trial"
)

// TrialTime is how long each engine is run to find the fastest.
const TrialTime = 2 * time.Second

// chooseEngine finds the pack for a model and mounts it. Where several read the
// model and its manifest names none, each is tried on the model's own part of the
// machine.
func (c *controller) chooseEngine(ctx context.Context, w *work) (*pack.Info, string, error) {
	m := w.model
	packs, err := c.candidates(w)
	if err != nil {
		return nil, "", err
	}
	table, chosen := c.only(m, packs), 0
	if len(packs) > 1 && m.Spec.Engine == "" {
		key := c.o.Choices.key(w, packs)
		if table = c.o.Choices.get(key, len(packs)); table == nil {
			at, err := c.trialPlace(ctx, w)
			if errors.Is(err, errNoRoom) {
				return c.asBefore(packs, err)
			}
			if err != nil {
				return nil, "", err
			}
			var failed bool
			if table, failed, err = c.try(ctx, at, packs); err != nil {
				return nil, "", err
			}
			if !failed {
				if err := c.o.Choices.put(key, table); err != nil {
					c.o.Log.Warn("which engine was chosen is not kept", "model", c.key.Name, "error", err)
				}
			}
		}
		// Where all refuse the model, the first one says why.
		chosen = max(0, slices.IndexFunc(table, func(t object.ModelCandidate) bool { return t.Chosen }))
	}
	c.set(func(st *object.ModelStatus) { st.Candidates = table })
	return c.o.Packs.Mount(packs[chosen].Digest)
}

func (c *controller) only(m *object.Model, packs []pack.Info) []object.ModelCandidate {
	reason := "the only installed pack that reads the model"
	if m.Spec.Engine != "" {
		reason = "spec.engine names it"
	}
	return []object.ModelCandidate{{Pack: packs[0].Name + " " + packs[0].Version, Chosen: true, Reason: reason}}
}

// try tries the packs one after the other. It reports whether something failed
// that may not fail again.
func (c *controller) try(ctx context.Context, at *work, packs []pack.Info) (table []object.ModelCandidate, failed bool, err error) {
	var tried []trial.Candidate
	for i := range packs {
		c.report.Phase(object.Starting, fmt.Sprintf("measuring the engine of pack %s (%d of %d)", packs[i].Name, i+1, len(packs)))
		t := trial.Candidate{Name: packs[i].Name}
		t.Result, t.Err = c.tryOne(ctx, *at, packs[i].Digest)
		if ctx.Err() != nil {
			return nil, false, ctx.Err()
		}
		tried = append(tried, t)
	}
	chosen, verdicts := trial.Choose(tried)
	table = tabulate(packs, tried, chosen, verdicts)
	for i := range table {
		c.o.Log.Info("engine tried", "model", c.key.Name, "pack", table[i].Pack, "chosen", table[i].Chosen, "reason", table[i].Reason, "batch1", table[i].Batch1.Std())
	}
	if chosen != 0 {
		c.report.Event(reconcile.ReasonChosen, summary(table))
	}
	return table, slices.ContainsFunc(verdicts, func(v trial.Verdict) bool { return v.Failed }), nil
}

// errNoRoom says that engines cannot be measured beside a worker.
var errNoRoom = errors.New("no room to measure engines beside the worker that answers")

// trialPlace is where engines are measured: the model's own place or, while a
// worker answers there, one beside it.
func (c *controller) trialPlace(ctx context.Context, w *work) (*work, error) {
	if c.live == nil || c.live.key != c.key {
		return w, nil
	}
	if err := c.clearBeside(); err != nil {
		return nil, err
	}
	key := c.besides()
	lent, err := c.o.Sandbox.Lend(ctx, as(w.model, key))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoRoom, err)
	}
	c.beside = 1
	return &work{model: w.model, digest: w.digest, key: key, placement: lent}, nil
}

// asBefore takes the engine that answers now, or the one that the rules prefer.
func (c *controller) asBefore(packs []pack.Info, why error) (*pack.Info, string, error) {
	chosen := max(0, slices.IndexFunc(packs, func(p pack.Info) bool { return p.Name == c.live.engine.Name }))
	p := &packs[chosen]
	table := []object.ModelCandidate{{Pack: p.Name + " " + p.Version, Chosen: true, Reason: why.Error()}}
	c.set(func(st *object.ModelStatus) { st.Candidates = table })
	return c.o.Packs.Mount(p.Digest)
}

// tryOne runs the model with one pack's engine, in the container of a trial.
func (c *controller) tryOne(ctx context.Context, at work, digest string) (_ *trial.Result, err error) {
	if at.engine, at.root, err = c.o.Packs.Mount(digest); err != nil {
		return nil, err
	}
	w, err := c.start(ctx, &at)
	if err != nil {
		return nil, err
	}
	return c.o.Server.Try(ctx, w, TrialTime)
}

func tabulate(packs []pack.Info, tried []trial.Candidate, chosen int, verdicts []trial.Verdict) []object.ModelCandidate {
	table := make([]object.ModelCandidate, len(packs))
	for i, v := range verdicts {
		t := &table[i]
		t.Pack, t.Chosen, t.Reason = packs[i].Name+" "+packs[i].Version, i == chosen, v.Reason
		if r := tried[i].Result; r != nil {
			t.Engine, t.Load = r.Metadata.Engine, object.Duration(r.Load)
			t.Batch1, t.Batch8 = object.Duration(r.Latency[0]), object.Duration(r.Latency[1])
		}
		if d := v.Difference; !math.IsNaN(d) && !math.IsInf(d, 0) {
			t.Difference = &d
		}
	}
	return table
}

// summary says in one line which engine was chosen, and why not the others.
func summary(table []object.ModelCandidate) string {
	chosen, others := "no engine can run the model", []string{}
	for _, t := range table {
		if t.Chosen {
			chosen = t.Pack + " runs the model, " + t.Reason
			continue
		}
		others = append(others, t.Pack+": "+t.Reason)
	}
	return chosen + ": " + strings.Join(others, "; ")
}

// Choices keeps which engines were chosen, and what batches cost with them, each
// under a digest of all that it depends on: model, packs, and hardware.
type Choices struct {
	dir      string
	hardware string
}

// mostChoices bounds how many are kept.
const mostChoices = 512

// OpenChoices opens or makes the folder. The hardware is any text that changes
// with what engines compute on.
func OpenChoices(dir, hardware string) (*Choices, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of chosen engines: %w", err)
	}
	return &Choices{dir, hardware}, nil
}

func (c *Choices) key(w *work, packs []pack.Info) string {
	m := w.model
	sum := sha256.New()
	fmt.Fprintf(sum, "%q %q %d %q\n", w.digest, m.Spec.Format, threads(m), c.hardware)
	for _, name := range slices.Sorted(maps.Keys(m.Spec.Options)) {
		fmt.Fprintf(sum, "%q %q\n", name, m.Spec.Options[name])
	}
	for _, p := range packs {
		fmt.Fprintf(sum, "%q\n", p.Digest)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// get returns what is kept for n packs, nil for nothing.
func (c *Choices) get(key string, n int) []object.ModelCandidate {
	text, err := os.ReadFile(filepath.Join(c.dir, key+".json"))
	if err != nil {
		return nil
	}
	var table []object.ModelCandidate
	if json.Unmarshal(text, &table) != nil || len(table) != n {
		return nil
	}
	return table
}

// put keeps a choice.
func (c *Choices) put(key string, table []object.ModelCandidate) error {
	text, err := json.Marshal(table)
	if err != nil {
		return err
	}
	return errors.Join(c.makeRoom(), durable.WriteFile(filepath.Join(c.dir, key+".json"), text, 0o600))
}

// Cost is what a batch of so many rows costs.
type Cost struct {
	Rows float64       `json:"rows"`
	Time time.Duration `json:"timeNs"`
}

// costs returns what was learned of a model's batches, nil for nothing.
func (c *Choices) costs(key string) (costs []Cost) {
	text, err := os.ReadFile(filepath.Join(c.dir, "costs-"+key+".json"))
	if err != nil || json.Unmarshal(text, &costs) != nil {
		return nil
	}
	return costs
}

// putCosts keeps what was learned.
func (c *Choices) putCosts(key string, costs []Cost) error {
	text, err := json.Marshal(costs)
	if err != nil {
		return err
	}
	return errors.Join(c.makeRoom(), durable.WriteFile(filepath.Join(c.dir, "costs-"+key+".json"), text, 0o600))
}

// makeRoom removes all where there are too many: they can be made again.
func (c *Choices) makeRoom() error {
	kept, err := filepath.Glob(filepath.Join(c.dir, "*.json"))
	if err != nil || len(kept) < mostChoices {
		return err
	}
	for _, file := range kept {
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	return nil
}
