package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/object"
)

func newLogsCommand(env *Env) *cobra.Command {
	var o logOptions
	var since string
	var instance int64
	c := &cobra.Command{
		Use: "logs [KIND] NAME", Short: "Show what a workload, a model or the system wrote", ValidArgsFunction: completeTarget(env), Args: rangeArgs(1, 2, "NAME or KIND NAME"),
		Example: `  oscine logs web            (the workload or model web)
  oscine logs model digits --since 10m
  oscine logs web --previous (what it wrote before it was started again)
  oscine logs system oscined
  oscine logs system init    (PID 1, since the machine started)`,
		RunE: func(c *cobra.Command, args []string) error {
			req := &oscinepb.LogsRequest{Follow: o.follow, Tail: o.tail, Previous: o.previous, Instance: instance}
			system := len(args) == 2 && args[0] == "system"
			from, err := sinceTime(since, time.Now())
			if err != nil {
				return err
			}
			if !from.IsZero() {
				req.Since = timestamppb.New(from)
			}
			switch {
			case o.previous && o.follow:
				return usageError{errors.New("--previous shows a run that has ended: leave out --follow")}
			case o.previous && system:
				return usageError{errors.New("--previous is for workloads and models; the system's log holds all its runs")}
			}
			if system {
				req.Name, o.merge = args[1], true
			} else if req.Kind, req.Name, err = env.parseNamed(args); err != nil {
				return err
			}
			if instance < 0 || instance > object.MaxInstances {
				return usageError{fmt.Errorf("--instance must be from 1 to %d", object.MaxInstances)}
			}
			if o.tail < 0 {
				return usageError{errors.New("--tail must not be negative")}
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			if req.Kind == "" && !system {
				kinds, err := kindsOf(c.Context(), env, node, req.Name)
				if err != nil {
					return err
				}
				req.Kind = string(kinds[len(kinds)-1]) // the workload, where a model shares its name
			}
			stream, err := node.Logs.Read(c.Context(), connect.NewRequest(req))
			if err != nil {
				return unlessLeft(c.Context(), err)
			}
			return o.print(c.Context(), env, stream)
		},
	}
	o.register(c)
	c.Flags().Int64Var(&o.tail, "tail", 0, "only the last lines (0: all that is kept)")
	c.Flags().StringVar(&since, "since", "", "only lines since then: how long ago, such as 10m or 24h, or a time such as 2026-01-31T15:04:05Z")
	c.Flags().Int64Var(&instance, "instance", 0, "of a model with several instances, which one, from 1 (default: the first)")
	c.Flags().BoolVarP(&o.previous, "previous", "p", false, "show the log of the previous run")
	return c
}

// sinceTime reads how long ago, or when: a date and time without a zone are
// local. The zero time stands for "".
func sinceTime(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", time.DateTime, time.DateOnly} {
		if at, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return at, nil
		}
	}
	return time.Time{}, usageError{fmt.Errorf("--since %q: write how long ago, such as 90s, 10m or 24h, or a time such as 2026-01-31T15:04:05Z or 2026-01-31", text)}
}

func newDmesgCommand(env *Env) *cobra.Command {
	o := logOptions{merge: true}
	c := &cobra.Command{
		Use: "dmesg", Short: "Show the node's kernel messages", Args: exactArgs(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			stream, err := node.Logs.Dmesg(c.Context(), connect.NewRequest(&oscinepb.DmesgRequest{Follow: o.follow}))
			if err != nil {
				return unlessLeft(c.Context(), err)
			}
			return o.print(c.Context(), env, stream)
		},
	}
	o.register(c)
	return c
}

type logOptions struct {
	follow, times, previous bool
	tail                    int64
	merge                   bool // everything to standard output
}

func (o *logOptions) register(c *cobra.Command) {
	c.Flags().BoolVarP(&o.follow, "follow", "f", false, "go on with new lines")
	c.Flags().BoolVarP(&o.times, "timestamps", "t", false, "begin each line with its time (UTC)")
}

// print writes stdout lines to Out and stderr lines to Err, as the program
// did.
func (o *logOptions) print(ctx context.Context, env *Env, stream *connect.ServerStreamForClient[oscinepb.LogLine]) error {
	defer stream.Close()
	for stream.Receive() {
		m := stream.Msg()
		var w io.Writer = env.Out
		if m.Stream == "stderr" && !o.merge {
			w = env.Err
		}
		if o.times {
			fmt.Fprintf(w, "%s ", m.Time.AsTime().Format(time.RFC3339Nano))
		}
		fmt.Fprintln(w, forTerminal(w, m.Text))
	}
	return unlessLeft(ctx, stream.Err())
}

// unlessLeft is what ended a stream; that the person ended it is no error.
func unlessLeft(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil
	}
	return err
}
