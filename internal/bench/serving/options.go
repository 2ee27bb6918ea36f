package serving

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Options say how much load there is, and for how long.
type Options struct {
	// Clients is how many requests are at work at a time: in the closed loop
	// always, in the open one at most.
	Clients int
	// Rate is how many requests arrive in a second, at random times (a Poisson
	// process). 0 is the closed loop: each client sends its next request when the
	// last is answered.
	Rate     float64
	Warmup   time.Duration // of load that is not counted
	Duration time.Duration // during which requests are sent; 0: as long as Count says
	Count    int           // of requests; 0: as many as Duration allows
	Timeout  time.Duration // of one request
	Seed     uint64        // of the arrivals
	// Progress is called a few times a second, by one goroutine; nil for nobody.
	Progress func(Snapshot)

	// enough ends the closed loop instead of Duration and Count, where it is set.
	enough func(elapsed time.Duration, sent uint64) bool
	// observe takes each request that has ended, after the warm-up.
	observe func(observed)
}

// Bounds of the options.
const (
	maxClients = 65536
	maxRate    = 10_000_000
)

// Check says what is wrong with the options.
func (o *Options) Check() error {
	switch {
	case o.Clients < 1 || o.Clients > maxClients:
		return fmt.Errorf("%d clients: from 1 to %d can be measured", o.Clients, maxClients)
	case math.IsNaN(o.Rate) || o.Rate < 0 || o.Rate > maxRate:
		return fmt.Errorf("a rate of %g requests a second: it is above 0 and at most %d", o.Rate, maxRate)
	case o.Warmup < 0:
		return fmt.Errorf("a warm-up of %v: it cannot be negative", o.Warmup)
	case o.Duration < 0:
		return fmt.Errorf("a duration of %v: it cannot be negative", o.Duration)
	case o.Count < 0:
		return fmt.Errorf("a count of %d requests: it cannot be negative", o.Count)
	case o.Duration == 0 && o.Count == 0 && o.enough == nil:
		return errors.New("neither a duration nor a count says when to end")
	case o.Timeout <= 0:
		return fmt.Errorf("a timeout of %v: a request needs more than nothing", o.Timeout)
	}
	return nil
}
