package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/object"
)

// runOptions are the flags of run.
type runOptions struct {
	name, class, cpu, memory, user string
	env, publish, volumes          []string
	detach, keep, root, writable   bool
	interactive, tty               bool
}

func newRunCommand(env *Env) *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use:                   "run [FLAGS] IMAGE [-- ARG...]",
		DisableFlagsInUseLine: true,
		Short:                 "Run an image once, show what it writes and end with its exit code",
		Long: `Run an image as a workload that is not restarted, follow its output and remove it
when it ends. With --detach it keeps running in the background and is restarted.

With -i standard input goes to the program; with -t it gets a terminal that is as
large as yours and that receives all keys, including Ctrl-C. Its output is then shown
and not logged.`,
		Example: "  oscine run docker.io/library/alpine:3 -- cat /etc/os-release\n  oscine run -it docker.io/library/alpine:3 -- sh\n  oscine run -d --name web -p 8080:80 docker.io/library/nginx:1.27\n  oscine run -v shop-data:/data docker.io/library/alpine:3 -- ls /data",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("needs an image: %s", c.UseLine())}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if o.detach && (o.interactive || o.tty) {
				return usageError{errors.New("-i and -t attach you to the program, and --detach leaves it: choose one")}
			}
			if o.tty && !isTerminal(env.In) {
				return errNoTerminal
			}
			text, err := o.manifest(args[0], afterDashes(args[1:]))
			if err != nil {
				return err
			}
			node, err := env.Client()
			if err != nil {
				return err
			}
			return o.run(c.Context(), env, node, text)
		},
	}
	f := c.Flags()
	f.SetInterspersed(false)
	f.StringVar(&o.name, "name", "", "name of the workload (default: from the image)")
	f.StringVar(&o.class, "class", "", "realtime, interactive or batch")
	f.StringVar(&o.cpu, "cpu", "", "cores, such as 2 or 500m")
	f.StringVar(&o.memory, "memory", "", "memory limit, such as 256Mi")
	f.StringVar(&o.user, "user", "", "uid[:gid] (default: the image's)")
	f.StringArrayVarP(&o.env, "env", "e", nil, "NAME=VALUE for the environment")
	f.StringArrayVarP(&o.publish, "publish", "p", nil, "HOSTPORT:PORT[/udp] to publish")
	f.StringArrayVarP(&o.volumes, "volume", "v", nil, "VOLUME:PATH[:ro], a named volume of the node and where to mount it; created if missing")
	f.BoolVarP(&o.detach, "detach", "d", false, "leave it running")
	f.BoolVarP(&o.interactive, "interactive", "i", false, "send standard input to the program")
	f.BoolVarP(&o.tty, "tty", "t", false, "give the program a terminal (implies -i)")
	f.BoolVar(&o.keep, "keep", false, "keep the workload after it ended")
	f.BoolVar(&o.root, "allow-root", false, "let it be root inside its user namespace")
	f.BoolVar(&o.writable, "writable", false, "give it a throw-away writable root")
	completeValues(c, "class", object.Realtime, object.Interactive, object.Batch)
	return c
}

var notInName = regexp.MustCompile(`[^a-z0-9-]+`)

// manifest writes the Workload that the flags describe; it is parsed like any
// other, so its mistakes read the same.
func (o *runOptions) manifest(image string, args []string) (string, error) {
	if o.name == "" {
		base, _, _ := strings.Cut(path.Base(image), "@")
		base, _, _ = strings.Cut(base, ":")
		base = strings.Trim(notInName.ReplaceAllString(strings.ToLower(base), "-"), "-")
		o.name = fmt.Sprintf("%.40s-%s", base, strings.ToLower(rand.Text()[:5]))
	}
	spec := map[string]any{
		"image": image, "args": args, "restart": object.RestartNever,
		"security": map[string]any{"allowRoot": o.root, "writableRoot": o.writable},
	}
	if o.detach {
		spec["restart"] = object.RestartAlways
	}
	if o.interactive || o.tty {
		spec["startOnAttach"] = true
	}
	resources := map[string]any{}
	for field, value := range map[string]string{"cpu": o.cpu, "memory": o.memory} {
		if value != "" {
			resources[field] = value
		}
	}
	spec["resources"] = resources
	for field, value := range map[string]string{"class": o.class, "user": o.user} {
		if value != "" {
			spec[field] = value
		}
	}
	variables := map[string]string{}
	for _, e := range o.env {
		name, value, ok := strings.Cut(e, "=")
		if !ok {
			return "", usageError{fmt.Errorf("--env %q: write NAME=VALUE", e)}
		}
		variables[name] = value
	}
	spec["env"] = variables
	ports, err := publishedPorts(o.publish)
	if err != nil {
		return "", err
	}
	spec["ports"] = ports
	if spec["volumes"], err = namedVolumes(o.volumes); err != nil {
		return "", err
	}
	return objectFromFlags(object.KindWorkload, o.name, spec)
}

func publishedPorts(publish []string) ([]map[string]any, error) {
	var ports []map[string]any
	for _, p := range publish {
		numbers, protocol, _ := strings.Cut(p, "/")
		host, inside, both := strings.Cut(numbers, ":")
		if !both {
			inside = host
		}
		h, errHost := strconv.Atoi(host)
		i, errInside := strconv.Atoi(inside)
		if err := errors.Join(errHost, errInside); err != nil {
			return nil, usageError{fmt.Errorf("--publish %q: write HOSTPORT:PORT or PORT, with /udp for UDP", p)}
		}
		if protocol == "" {
			protocol = "tcp"
		}
		ports = append(ports, map[string]any{"hostPort": h, "port": i, "protocol": protocol})
	}
	return ports, nil
}

func namedVolumes(texts []string) ([]map[string]any, error) {
	var volumes []map[string]any
	for _, text := range texts {
		name, at, ok := strings.Cut(text, ":")
		at, mode, given := strings.Cut(at, ":")
		switch {
		case !ok || (given && mode != "ro" && mode != "rw"):
			return nil, usageError{fmt.Errorf("--volume %q: write VOLUME:PATH, with :ro to only read it", text)}
		case strings.ContainsAny(name, "/.~"):
			return nil, usageError{fmt.Errorf("--volume %q: give the name of a volume on the node, not a folder of this computer: see oscine volume list, and oscine cp to fill one", text)}
		}
		volumes = append(volumes, map[string]any{"name": name, "path": at, "readOnly": mode == "ro"})
	}
	return volumes, nil
}

func (o *runOptions) run(ctx context.Context, env *Env, node *client.Client, text string) error {
	key := object.Key{Kind: object.KindWorkload, Name: o.name}
	kind := string(key.Kind)
	_, err := node.Objects.Get(ctx, connect.NewRequest(&pb.GetRequest{Kind: kind, Name: o.name}))
	if err == nil {
		return fmt.Errorf("a workload is named %s already: choose another --name, or oscine delete workload %s", o.name, o.name)
	}
	if connect.CodeOf(err) != connect.CodeNotFound {
		return err
	}
	resp, err := node.Objects.Apply(ctx, connect.NewRequest(&pb.ApplyRequest{Manifest: text}))
	if err != nil {
		return err
	}
	if o.detach {
		return printResults(env.Out, resp.Msg.Results, false)
	}
	tellDisplaced(env.Err, resp.Msg.Results)
	if !o.keep {
		defer removeWorkload(ctx, env, node, o.name)
	}
	if _, err := awaitWorkload(ctx, env, node, key, object.Running, object.Unhealthy, object.Exited, object.Stopped); err != nil {
		return err
	}
	if o.interactive || o.tty {
		session := &execSession{env: env, start: &pb.ExecStart{Workload: o.name, Tty: o.tty}, interactive: true}
		return session.run(ctx, node.Workloads.Exec(ctx))
	}
	logs, err := node.Logs.Read(ctx, connect.NewRequest(&pb.LogsRequest{Kind: kind, Name: o.name, Follow: true}))
	if err != nil {
		return err
	}
	if err := (&logOptions{}).print(ctx, env, logs); err != nil {
		return err
	}
	final, err := awaitWorkload(ctx, env, node, key, object.Exited, object.Stopped)
	if err != nil {
		return err
	}
	if final.Phase == object.Stopped {
		return fmt.Errorf("workload %s was stopped before it ended", o.name)
	}
	if code := final.ExitCode; code != nil && *code != 0 {
		if final.OOMKilled {
			fmt.Fprintln(env.Err, "oscine: the workload was killed: it needed more than its memory limit")
		}
		return exitError(*code)
	}
	return nil
}

// awaitWorkload watches a workload until it is in one of the phases; what keeps
// it from running is an error.
func awaitWorkload(ctx context.Context, env *Env, node *client.Client, key object.Key, phases ...object.Phase) (st *object.WorkloadStatus, err error) {
	wait := newWaiting(env, "workload "+key.Name)
	defer wait.done()
	err = node.Watch(ctx, env.Kinds, key, func(state object.State) (bool, error) {
		var ok bool
		if st, ok = state.Status.(*object.WorkloadStatus); !ok {
			return false, fmt.Errorf("the node sent %s without its status", key)
		}
		if st.Phase == object.Waiting || st.Phase == object.Unplaced {
			return false, fmt.Errorf("workload %s: %s", key.Name, st.Message)
		}
		wait.tell(waitsFor(key, &st.Observed))
		return !slices.Contains(phases, st.Phase), nil
	})
	return st, err
}

// removeWorkload removes what a command began, also after an interrupt, and says so
// where it cannot.
func removeWorkload(ctx context.Context, env *Env, node *client.Client, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if _, err := node.Objects.Delete(ctx, connect.NewRequest(&pb.DeleteRequest{Kind: string(object.KindWorkload), Name: name})); err != nil {
		fmt.Fprintf(env.Err, "oscine: remove workload %s: %v: it may be left on the node\n", name, err)
	}
}
