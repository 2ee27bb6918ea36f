package hardware

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestLive(t *testing.T) {
	l := NewLive("/", func(*Machine) map[string]DeviceLoad { return map[string]DeviceLoad{"gpu0": {Busy: 0.5}} })
	m, err := Discover("/")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Follow(t.Context(), time.Millisecond, nil); !errors.Is(err, ErrLoadInterval) {
		t.Errorf("a load every millisecond: got %v, want ErrLoadInterval", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	news := make(chan News, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- l.Follow(ctx, MinLoadInterval, func(one News) error {
			select {
			case news <- one:
			case <-ctx.Done():
			}
			return nil
		})
	}()
	time.Sleep(2 * MinLoadInterval) // no map yet, so no load
	l.Set(m, nil)
	if one := <-news; one.Machine != m || one.Load != nil {
		t.Errorf("first got %+v, want the map", one)
	}
	if one := <-news; one.Load == nil || len(one.Load.CPUs) != m.Online.Len() {
		t.Errorf("then got %+v, want the load of %d CPUs", one, m.Online.Len())
	}
	for one := range news { // drivers are asked while nobody waits for them
		if one.Load.Devices["gpu0"].Busy == 0.5 {
			break
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("a follower that left: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// TestFollowerInNoHurry: drivers are asked between its looks too, so that what
// they told is never too old to be shown.
func TestFollowerInNoHurry(t *testing.T) {
	m, err := Discover("/")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		l := NewLive("/", func(*Machine) map[string]DeviceLoad { asked++; return map[string]DeviceLoad{"gpu0": {Busy: 0.5}} })
		l.Set(m, nil)
		loads := 0
		enough := errors.New("enough")
		err := l.Follow(t.Context(), time.Minute, func(one News) error {
			if one.Load == nil {
				return nil
			}
			if one.Load.Devices["gpu0"].Busy != 0.5 {
				t.Errorf("load %d lacks what the driver told: %+v", loads, one.Load.Devices)
			}
			if loads++; loads == 3 {
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if asked < 30 || asked > 40 { // every five seconds
			t.Errorf("drivers were asked %d times in three minutes", asked)
		}
	})
}

// TestSlowFollower: one that does not read loses the oldest changes, and learns it.
func TestSlowFollower(t *testing.T) {
	l := NewLive("/", nil)
	slow, err := l.join()
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxUnread + 20 {
		l.Set(&Machine{}, []Change{NewChange(DeviceAdded, fmt.Sprint(i), "added")})
	}
	told := l.news(slow).Changes
	if len(told) < maxUnread || told[0].Reason != ChangesMissed || told[len(told)-1].Device != fmt.Sprint(maxUnread+19) {
		t.Errorf("%d changes, the first is %+v", len(told), told[:min(1, len(told))])
	}
	l.leave(slow)
}

func TestManyFollowers(t *testing.T) {
	l := NewLive("/", nil)
	for range 2 { // places become free again
		var all []*follower
		for range maxFollowers {
			f, err := l.join()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, f)
		}
		if err := l.Follow(t.Context(), 0, nil); !errors.Is(err, ErrFollowers) {
			t.Errorf("one more than %d: got %v, want ErrFollowers", maxFollowers, err)
		}
		for _, f := range all {
			l.leave(f)
		}
	}
}
