package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/printable"
)

func newTokenCommand(env *Env) *cobra.Command {
	c := &cobra.Command{Use: "token", Short: "Manage tokens for inference clients without a certificate"}
	c.AddCommand(newTokenCreateCommand(env), newTokenListCommand(env), newTokenRemoveCommand(env))
	return c
}

func newTokenCreateCommand(env *Env) *cobra.Command {
	var (
		token    pb.Token
		rate     string
		lifetime string
	)
	c := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a token for an inference client, and show it once",
		Long: `Create a token with which a client may use the node's models on the port of
spec.inference, as Authorization: Bearer TOKEN. The token alone is written to
standard output, now and never again: the node keeps a digest of it.

A token can be limited to some models, to a rate, to a number of concurrent
requests and to a lifetime. It gives no access to the node's API.`,
		Example: "  oscine token create web --model 'digits*' --rate 100 --max-concurrent 8 --expires 90d\n  curl -H \"Authorization: Bearer $(oscine token create tmp --expires 1h)\" http://NODE:8000/v2/models/digits",
		Args:    exactArgs(1, "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			token.Name = args[0]
			q := &pb.CreateTokenRequest{Token: &token}
			if rate != "" {
				var err error
				if token.Rate, err = parseRate(rate); err != nil {
					return usageError{err}
				}
			}
			if lifetime != "" {
				d, err := parseDays(lifetime)
				if err != nil {
					return usageError{err}
				}
				q.Lifetime = durationpb.New(d)
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			resp, err := node.Tokens.Create(c.Context(), connect.NewRequest(q))
			if err != nil {
				return err
			}
			fmt.Fprintln(env.Out, resp.Msg.Secret)
			return nil
		},
	}
	f := c.Flags()
	f.StringArrayVar(&token.Models, "model", nil, "pattern of models' names that the token is for, with * and ? (default: all models)")
	f.StringVar(&rate, "rate", "", "average requests per second, such as 100 or 5/m (default: no limit)")
	f.Var((*limitFlag)(&token.Burst), "burst", "size of a burst, in requests (default: one second's worth)")
	f.Var((*limitFlag)(&token.Concurrent), "max-concurrent", "concurrent requests (default: no limit)")
	f.StringVar(&lifetime, "expires", "", "how long the token is valid, such as 90d or 12h (default: until it is removed)")
	return c
}

// limitFlag is a flag for a number of requests; 0 where it is left out.
type limitFlag uint32

// Set implements pflag.Value.
func (l *limitFlag) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 0 {
		return errors.New("write a whole number from 1 on; leave it out for the default")
	}
	*l = limitFlag(n)
	return nil
}

// String implements pflag.Value.
func (l *limitFlag) String() string { return strconv.FormatUint(uint64(*l), 10) }

// Type implements pflag.Value.
func (*limitFlag) Type() string { return "uint32" }

// parseRate reads requests a second, or with /s, /m or /h behind a number in
// that time.
func parseRate(text string) (float64, error) {
	number, unit, _ := strings.Cut(text, "/")
	per, ok := map[string]float64{"": 1, "s": 1, "m": 60, "h": 3600}[unit]
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !ok || !(n > 0) {
		return 0, fmt.Errorf("--rate %q: write requests per second, or a rate such as 5/m or 100/h; leave it out for no limit", text)
	}
	return n / per, nil
}

// parseDays reads a duration that may be in days.
func parseDays(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil && n > 0 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	} else if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return d, nil
	}
	return 0, fmt.Errorf("--expires %q: write a duration, such as 90d or 12h", text)
}

func newTokenListCommand(env *Env) *cobra.Command {
	var output *string
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the tokens, their limits and their use", Args: exactArgs(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			resp, err := node.Tokens.List(c.Context(), connect.NewRequest(&pb.ListTokensRequest{}))
			if err != nil {
				return err
			}
			return listOf(resp.Msg.Tokens, (*pb.Token).GetName, "NAME\tMODELS\tRATE\tCONCURRENT\tEXPIRES\tLAST USED\tREQUESTS\tREFUSED", tokenRow).print(env.Out, *output)
		},
	}
	output = addOutput(c)
	return c
}

func tokenRow(t *pb.Token, _ bool) string {
	rate := "-"
	if t.Rate > 0 {
		number, unit := printable.Rate(t.Rate)
		rate = number + "/" + unit
	}
	concurrent := "-"
	if t.Concurrent > 0 {
		concurrent = strconv.Itoa(int(t.Concurrent))
	}
	at := func(t *timestamppb.Timestamp) string {
		if t == nil {
			return "-"
		}
		return t.AsTime().Format(time.RFC3339)
	}
	return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d", orDash(t.Name), orDash(strings.Join(t.Models, ",")), rate, concurrent, at(t.Expires), at(t.LastUsed), t.Requests, t.Refused)
}

func newTokenRemoveCommand(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME…", Aliases: []string{"remove", "delete"}, Short: "Revoke tokens", Args: rangeArgs(1, 1000, "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			node, err := env.Client()
			if err != nil {
				return err
			}
			if _, err := node.Tokens.Remove(c.Context(), connect.NewRequest(&pb.RemoveTokensRequest{Names: args})); err != nil {
				return err
			}
			for _, name := range args {
				fmt.Fprintf(env.Out, "token/%s removed\n", name)
			}
			return nil
		},
	}
}
