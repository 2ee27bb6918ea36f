package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/object"
)

func newWaitCommand(env *Env) *cobra.Command {
	var what string
	var limit time.Duration
	c := &cobra.Command{
		Use: "wait KIND NAME... | KIND/NAME... --for phase=PHASE|deleted", Short: "Wait until objects are in a phase, or gone",
		Long: `Wait until every named object is in a phase, or gone. Where that takes longer than
--timeout the exit status is 7.`,
		Example:           "  oscine wait workload web --for phase=Running\n  oscine wait workload/web model/digits --for deleted --timeout 1m",
		ValidArgsFunction: completeTarget(env), Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			phase, err := parseFor(what)
			if err != nil {
				return err
			}
			targets, err := env.parseSeveral(args)
			if err != nil {
				return err
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(c.Context(), limit, errLate)
			defer cancel()
			for _, t := range targets {
				if err := waitOne(ctx, env, node, t, phase); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().StringVar(&what, "for", "", "phase=PHASE, or deleted")
	c.Flags().DurationVar(&limit, "timeout", 5*time.Minute, "how long to wait at most")
	_ = c.MarkFlagRequired("for")
	offered := []string{"deleted"}
	for _, phase := range object.Phases() {
		offered = append(offered, "phase="+string(phase))
	}
	completeValues(c, "for", offered...)
	return c
}

// parseFor reads the condition of wait: a phase, "" for deleted.
func parseFor(what string) (object.Phase, error) {
	if what == "deleted" {
		return "", nil
	}
	name, phase := strings.CutPrefix(what, "phase=")
	var known []string
	for _, p := range object.Phases() {
		if phase && strings.EqualFold(name, string(p)) {
			return p, nil
		}
		known = append(known, string(p))
	}
	return "", usageError{fmt.Errorf("--for %q: write deleted or phase=PHASE, with one of %s", what, strings.Join(known, ", "))}
}

var errLate = connect.NewError(connect.CodeDeadlineExceeded, errors.New("it took longer than --timeout"))

// waitOne waits for one object, and says when it is so.
func waitOne(ctx context.Context, env *Env, node *client.Client, key object.Key, phase object.Phase) error {
	name := objectName(string(key.Kind), key.Name)
	wait := newWaiting(env, name)
	said, err := "deleted", error(nil)
	if phase == "" {
		err = awaitDeleted(ctx, node, key)
	} else {
		said = "is " + string(phase)
		last := ""
		err = awaitPhase(ctx, env, node, key, func(st *object.Observed) bool {
			last = waitsFor(key, st)
			wait.tell(last)
			return st.Phase == phase
		})
		if ctx.Err() != nil && last != "" {
			err = fmt.Errorf("%w: %s", context.Cause(ctx), last)
		}
	}
	wait.done()
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errLate) && !errors.Is(err, errLate) {
			return fmt.Errorf("%s: %w", name, cause)
		}
		return err
	}
	fmt.Fprintf(env.Out, "%s %s\n", name, said)
	return nil
}

func awaitPhase(ctx context.Context, env *Env, node *client.Client, key object.Key, reached func(*object.Observed) bool) error {
	if _, err := node.Objects.Get(ctx, connect.NewRequest(&oscinepb.GetRequest{Kind: string(key.Kind), Name: key.Name})); err != nil {
		return err // not there: nothing would ever come
	}
	return node.Watch(ctx, env.Kinds, key, func(state object.State) (bool, error) {
		return state.Status == nil || !reached(state.Status.Common()), nil
	})
}

// deletedPoll is how often a node is asked whether an object is still there: a
// watch says nothing of one that was gone before it began.
const deletedPoll = 500 * time.Millisecond

func awaitDeleted(ctx context.Context, node *client.Client, key object.Key) error {
	for {
		resp, err := node.Objects.Get(ctx, connect.NewRequest(&oscinepb.GetRequest{Kind: string(key.Kind), Name: key.Name}))
		if connect.CodeOf(err) == connect.CodeNotFound {
			return nil
		}
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(resp.Msg.Objects, func(o *oscinepb.Object) bool { return o.Name == key.Name }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(deletedPoll):
		}
	}
}
