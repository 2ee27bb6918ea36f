package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/artifact"
	"oscine.dev/oscine/internal/serve/chat"
	"oscine.dev/oscine/internal/serve/oip"
)

// chatOptions are the flags of chat.
type chatOptions struct {
	endpoint
	system               string
	maxTokens            int
	temperature          float64
	seed                 int64
	interactive, verbose bool
	memory, cpu          string
	options              map[string]string
}

func newChatCommand(env *Env) *cobra.Command {
	var o chatOptions
	c := &cobra.Command{
		Use:               "chat MODEL|FILE|URL|REFERENCE [MESSAGE...]",
		ValidArgsFunction: completeModelThenFiles(env),
		Short:             "Chat with a language model",
		Long: `Chat with a language model that the node serves. A GGUF file, the URL of one, or the reference
of one in a registry, oci://HOST/REPOSITORY:TAG, is served first, under its name. On a terminal the conversation goes on until /bye or the end of
the input; Ctrl-C stops an answer. A message from the command line or from a pipe gets one answer.`,
		Example: "  oscine chat smollm2\n  oscine chat ./smollm2.gguf\n  oscine chat oci://docker.io/ai/smollm2:135M-Q4_0\n  oscine chat smollm2 Why is the sky blue?\n  oscine chat smollm2 < question.txt",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("needs a model: %s", c.UseLine())}
			}
			switch {
			case o.maxTokens < 0:
				return usageError{fmt.Errorf("--max-tokens %d: give at least 1, or 0 for what the context holds", o.maxTokens)}
			case !(o.temperature >= 0 && o.temperature <= maxTemperature):
				return usageError{fmt.Errorf("--temperature %g: give 0 to %d", o.temperature, maxTemperature)}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			talk := &conversation{env: env, options: &o}
			o.temperatureGiven(c, &talk.request)
			if err := talk.reach(c.Context(), args[0]); err != nil {
				return err
			}
			err := talk.run(c.Context(), strings.Join(args[1:], " "))
			return o.explain(c.Context(), env, talk.server, talk.request.Model, err)
		},
	}
	f := c.Flags()
	f.StringVar(&o.system, "system", "", "instructions that come before the conversation")
	f.IntVar(&o.maxTokens, "max-tokens", 0, "maximum tokens of an answer (default: what the context holds)")
	f.Float64Var(&o.temperature, "temperature", 0, "sampling temperature; 0 always picks the likeliest token (default: the engine's)")
	f.Int64Var(&o.seed, "seed", 0, "seed for sampling (default: a random one)")
	f.BoolVarP(&o.interactive, "interactive", "i", false, "take each line of a pipe as a message")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "print token counts and times after each answer")
	o.addFlags(c)
	f.StringVar(&o.memory, "memory", "", "memory limit, if a file is served (default: what its header asks for)")
	f.StringVar(&o.cpu, "cpu", "", "cores, if a file is served (default 100m)")
	f.Var((*optionFlag)(&o.options), "option", "slots, context or task, if a file is served, as NAME=VALUE")
	return c
}

// maxTemperature is that of OpenAI's API.
const maxTemperature = 2

func (o *chatOptions) temperatureGiven(c *cobra.Command, r *chat.Request) {
	if c.Flags().Changed("temperature") {
		r.Temperature = &o.temperature
	}
	if c.Flags().Changed("seed") {
		r.Seed = &o.seed
	}
}

// conversation is a chat with one model.
type conversation struct {
	env     *Env
	options *chatOptions
	server  *oip.Client
	client  *chat.Client
	request chat.Request
}

// reach finds the model, and serves one that is a file or a URL.
func (t *conversation) reach(ctx context.Context, model string) error {
	t.request.Model, t.request.MaxTokens = model, t.options.maxTokens
	if t.options.system != "" {
		t.request.Messages = []chat.Message{{Role: "system", Content: t.options.system}}
	}
	server, err := t.options.server(t.env)
	if err != nil {
		return err
	}
	t.server = server
	t.client = &chat.Client{HTTP: server.HTTP, URL: server.URL, Token: server.Token}
	if !isURL(model) && !artifact.Is(model) && !isFile(model) {
		return nil
	}
	if t.options.url != "" {
		return usageError{errors.New("a file is served by the context's node: leave --url out")}
	}
	s := serveOptions{memory: t.options.memory, cpu: t.options.cpu, options: t.options.options, wait: time.Hour}
	if _, err := s.run(ctx, t.env, model); err != nil {
		return err
	}
	t.request.Model = s.name
	return nil
}

// isFile reports whether the argument names a file: a path with a separator or
// the format's ending.
func isFile(name string) bool {
	return strings.ContainsRune(name, os.PathSeparator) || strings.HasSuffix(strings.ToLower(name), ".gguf")
}

// run answers the one message, the pipe's or those of a person.
func (t *conversation) run(ctx context.Context, message string) error {
	if message == "" && (isTerminal(t.env.In) || t.options.interactive) {
		return t.converse(ctx)
	}
	if message == "" {
		text, err := readBounded(t.env, "-", maxMessage, "the most that is sent as one message")
		if err != nil {
			return err
		}
		if message = strings.TrimSpace(string(text)); message == "" {
			return usageError{errors.New("there is no message: give it after the model, or on standard input")}
		}
	}
	return t.answer(ctx, message)
}

// maxMessage bounds one message in bytes.
const maxMessage = 4 << 20

// answer sends a message and prints the answer as it comes.
func (t *conversation) answer(ctx context.Context, message string) error {
	before := len(t.request.Messages)
	t.request.Messages = append(t.request.Messages, chat.Message{Role: "user", Content: message})
	out := t.env.Out
	plain := &plainWriter{w: out}
	if isTerminal(out) {
		out = plain
	}
	thinks := false
	a, err := t.client.Ask(ctx, t.request, func(p chat.Piece) error {
		if p.Thinking {
			if !thinks && isTerminal(t.env.Err) {
				fmt.Fprintln(t.env.Err, "(thinking)")
			}
			thinks = true
			return nil
		}
		_, err := io.WriteString(out, p.Text)
		return err
	})
	if a.Text != "" {
		err = errors.Join(err, plain.Close())
		fmt.Fprintln(t.env.Out)
		t.request.Messages = append(t.request.Messages, chat.Message{Role: "assistant", Content: a.Text})
	} else if err != nil {
		t.request.Messages = t.request.Messages[:before] // as if it had not been asked
	}
	if err != nil {
		return err
	}
	if a.Finish == "length" {
		fmt.Fprintln(t.env.Err, "(the answer is cut off: it reached --max-tokens, or the end of the model's context)")
	}
	if t.options.verbose {
		fmt.Fprintf(t.env.Err, "(%d tokens read, %d written, the first after %.2f s, all in %.2f s)\n", a.Prompt, a.Generated, a.First.Seconds(), a.Took.Seconds())
	}
	return nil
}
