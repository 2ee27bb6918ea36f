package cli

import (
	"context"
	"errors"
	"fmt"
	"html"
	"os"
	"os/exec"
	"runtime"

	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/web"
)

func newWebCommand(env *Env) *cobra.Command {
	var port int
	var noBrowser bool
	c := &cobra.Command{
		Use: "web", Short: "Show a node live on a local web page: map, load, objects, latencies, events, logs", Args: exactArgs(0, "no argument"),
		Long: `Show a node live on a local web page: its map and load, workloads and models,
latencies, events and logs. Interrupt (Ctrl-C) ends it.

The page is served on 127.0.0.1 only, to anyone who has the printed address, which holds
a token. The context's certificates stay with this command, and the page changes nothing on
the node.`,
		Example: "  oscine web\n  oscine web --no-browser --port 8080    (from another computer: ssh -L 8080:127.0.0.1:8080 HOST)",
		RunE: func(c *cobra.Command, _ []string) error {
			if port < 0 || port > 65535 {
				return usageError{fmt.Errorf("--port %d: give 1 to 65535, or 0 for any free one", port)}
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			server, err := web.Listen(node, env.Kinds, port)
			if err != nil {
				return err
			}
			fmt.Fprintln(env.Out, server.URL())
			fmt.Fprintln(env.Err, "Interrupt (Ctrl-C) ends it.")
			if !noBrowser {
				remove, err := openBrowser(c.Context(), server.URL())
				if err != nil {
					fmt.Fprintf(env.Err, "no browser was started: %v: open the address yourself\n", err)
				}
				defer remove()
			}
			return server.Serve(c.Context())
		},
	}
	c.Flags().IntVar(&port, "port", 0, "port on 127.0.0.1 (0: any free one)")
	c.Flags().BoolVar(&noBrowser, "no-browser", false, "only print the address")
	return c
}

// openBrowser opens the URL in the person's browser. It hands over a file that
// leads there: arguments of programs, and so the token, can be read by other
// users. What it returns removes the file.
func openBrowser(ctx context.Context, url string) (remove func(), err error) {
	var command []string
	switch {
	case runtime.GOOS == "darwin":
		command = []string{"open"}
	case runtime.GOOS == "windows":
		command = []string{"rundll32", "url.dll,FileProtocolHandler"}
	case os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "":
		return func() {}, errors.New("there is no display")
	default:
		command = []string{"xdg-open"}
	}
	program, err := exec.LookPath(command[0])
	if err != nil {
		return func() {}, err
	}
	file, err := os.CreateTemp("", "oscine-web-*.html") // for its owner only
	if err != nil {
		return func() {}, err
	}
	remove = func() { _ = os.Remove(file.Name()) } // a leftover opens nothing once the token is gone
	_, err = fmt.Fprintf(file, "<!doctype html><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"0;url=%[1]s\"><a href=\"%[1]s\">Oscine</a>\n", html.EscapeString(url))
	if err := errors.Join(err, file.Close()); err != nil {
		return remove, err
	}
	opener := exec.CommandContext(ctx, program, append(command[1:], file.Name())...)
	if err := opener.Start(); err != nil {
		return remove, err
	}
	go func() { _ = opener.Wait() }() // what became of the browser is the person's to see
	return remove, nil
}
