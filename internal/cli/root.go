package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/printable"
	"oscine.dev/oscine/internal/version"
)

// exitError ends the command with a status and no message, as the exit status
// of a program that ran on the node.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// Run executes oscine with the given arguments (without the program's name)
// and returns its exit status; see exitStatus.
func Run(args []string, in io.Reader, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second interrupt ends a command that does not listen
	return (&Env{In: in, Out: out, Err: errOut, Kinds: object.Kinds()}).Run(ctx, args)
}

// Run executes one command, until ctx ends, and returns its exit status.
func (e *Env) Run(ctx context.Context, args []string) int {
	root := newRootCommand(e)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var status exitError
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, &usage):
		fmt.Fprintf(e.Err, "oscine: %s\n", printable.Lines(err.Error()))
		return exitUsage
	case ctx.Err() != nil:
		fmt.Fprintln(e.Err, "oscine: interrupted")
		return exitInterrupted
	}
	fmt.Fprintf(e.Err, "oscine: %s\n", printable.Lines(message(err)))
	return exitStatus(err)
}

// groupError matches what cobra says of flags that exclude or need each other.
var groupError = regexp.MustCompile(`^if any flags in the group \[.*\] are set (none of the others can be; \[(.*)\] were all set|they must all be set; missing \[(.*)\])$`)

// checkFlags checks for cobra, before it does, which flags are missing, exclude or
// need each other: its errors are of no type, and their words are not ours.
func checkFlags(c *cobra.Command, _ []string) error {
	if err := c.ValidateRequiredFlags(); err != nil {
		_, names, _ := strings.Cut(strings.TrimSuffix(err.Error(), `" not set`), `"`)
		return usageError{fmt.Errorf("needs --%s: see %s --help", strings.ReplaceAll(names, `", "`, " and --"), c.CommandPath())}
	}
	err := c.ValidateFlagGroups()
	if err == nil {
		return nil
	}
	switch m := groupError.FindStringSubmatch(err.Error()); {
	case m == nil:
		return usageError{err}
	case m[2] != "":
		return usageError{fmt.Errorf("--%s exclude each other: give one of them", strings.Join(strings.Fields(m[2]), " and --"))}
	default:
		return usageError{fmt.Errorf("needs --%s too", strings.Join(strings.Fields(m[3]), " and --"))}
	}
}

// message is an error as a person reads it: what the node said, without the
// code that programs read.
func message(err error) string {
	var remote *connect.Error
	if errors.As(err, &remote) {
		return strings.Replace(err.Error(), remote.Error(), remote.Message(), 1)
	}
	return err.Error()
}

// several are the errors of a command that did something to each of many; its
// exit status is that of the first class of any.
type several []error

// Error returns the messages, one a line.
func (s several) Error() string {
	lines := make([]string, len(s))
	for i, err := range s {
		lines[i] = message(err)
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the errors.
func (s several) Unwrap() []error { return s }

// joined is what went wrong, nil where nothing did.
func joined(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	return several(errs)
}

type usageError struct{ error }

func newRootCommand(env *Env) *cobra.Command {
	root := &cobra.Command{
		Use:               "oscine",
		Short:             "Oscine is an operating system for AI machines",
		SilenceUsage:      true,
		SilenceErrors:     true,
		PersistentPreRunE: checkFlags,
		Version:           version.Version,
	}
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see %s --help", err, c.CommandPath())}
	})
	root.PersistentFlags().StringVar(&env.ConfigPath, "config", "", "client configuration (default $OSCINE_CONFIG or ~/.config/oscine/config)")
	root.PersistentFlags().StringVar(&env.Context, "context", "", "context to use (default: the current one)")
	_ = root.RegisterFlagCompletionFunc("context", completeContext(env)) // fails for an unknown flag only
	root.AddGroup(
		&cobra.Group{ID: "node", Title: "A node and what runs on it:"},
		&cobra.Group{ID: "machine", Title: "Images and local machines:"},
		&cobra.Group{ID: "know", Title: "Hardware and placement:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("node", newApplyCommand(env), newDiffCommand(env), newEditCommand(env), newGetCommand(env), newPsCommand(env), newDescribeCommand(env), newStopCommand(env), newStartCommand(env), newRestartCommand(env), newDeleteCommand(env), newWaitCommand(env),
		newRunCommand(env), newServeCommand(env), newOptimizeCommand(env), newInferCommand(env), newChatCommand(env), newLogsCommand(env), newEventsCommand(env), newExecCommand(env), newCpCommand(env), newPortForwardCommand(env),
		newInfoCommand(env), newDmesgCommand(env), newRebootCommand(env), newShutdownCommand(env), newResetCommand(env), newRecoveryKeyCommand(env), newUnlockCommand(env), newUpgradeCommand(env), newPackCommand(env), newModelCommand(env), newVolumeCommand(env), newSecretCommand(env), newTokenCommand(env), newConfigCommand(env))
	add("node", newWebCommand(env), newAttestCommand(env))
	add("machine", newInstallCommand(env))
	add("machine", newImageCommand(env), newReleaseCommand(env), newKeysCommand(env), newMachineCommand(env), newDemoCommand(env))
	add("know", newExplainCommand(env), newHardwareCommand(env), newPlaceCommand(env), newSimCommand(env), newTopCommand(env), newDoctorCommand(env), newBenchCommand(env))
	root.AddCommand(newExitStatusTopic())
	root.SetHelpCommand(newHelpCommand(root))
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	strict(root)
	return root
}
