package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/artifact"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/gguf"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/serve/language"
	"oscine.dev/oscine/internal/serve/oip"
	"oscine.dev/oscine/internal/serve/picture"
	"oscine.dev/oscine/internal/serve/triton"
)

// serveOptions are the flags of serve.
type serveOptions struct {
	name, class, cpu, memory, version, engine, maxRequest string

	onDemand    bool
	instances   int
	idleTimeout time.Duration

	servedAs string
	devices  []string // selectors
	traffic  *int     // nil: not given
	shadow   bool
	options  map[string]string
	wait     time.Duration
	dryRun   bool

	s3        s3Flags
	plainHTTP bool      // the registry may be asked without TLS
	task      gguf.Task // of a language model, "" for another
}

func newServeCommand(env *Env) *cobra.Command {
	var o serveOptions
	var traffic int
	c := &cobra.Command{
		Use:   "serve FILE|FOLDER|URL|REFERENCE",
		Short: "Send a model to the node and serve it",
		Long: `Send a model to the node, have it served by an engine worker in a container of its own, and wait
until it answers. A model is a file, with the data files that it names, or a folder without its
hidden files. What the node already has is not sent again; an interrupted upload is resumed.
Serving another file under the same name replaces the model. A URL is fetched first.
A reference, oci://HOST/REPOSITORY:TAG, is pulled from its registry by the node, and pinned by its digest; so is a file
or folder in an S3 bucket, s3://BUCKET/KEY. A language
model (GGUF) gets the memory that its context needs, unless --memory says otherwise.`,
		Example: "  oscine serve digits.onnx\n  oscine serve net.onnx --name vision --class realtime --cpu 2\n  oscine serve ./saved_model\n  oscine serve smollm2.gguf --option slots=2 --option context=8192\n  oscine serve oci://docker.io/ai/smollm2:135M-Q4_0\n  oscine serve s3://models/digits.onnx --s3-endpoint https://minio.example:9000 --s3-secret minio",
		Args:    exactArgs(1, "a model's file, folder, URL or reference"),
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("traffic") {
				o.traffic = &traffic
			}
			status, err := o.run(c.Context(), env, args[0])
			if err != nil || o.dryRun {
				return err
			}
			return o.report(c.Context(), env, status)
		},
	}
	f := c.Flags()
	f.StringVar(&o.name, "name", "", "name of the model (default: from the file)")
	f.StringVar(&o.class, "class", "", "realtime, interactive or batch")
	f.StringVar(&o.cpu, "cpu", "", "cores, such as 2 or 500m; others may use them while the model is idle (default 100m, or 1 with class realtime)")
	f.StringVar(&o.memory, "memory", "", "memory limit, such as 256Mi")
	f.StringArrayVar(&o.devices, "device", nil, `a device that it computes on, as a selector such as 'device.driver == "gpu.nvidia.com"' (repeatable)`)
	f.StringVar(&o.maxRequest, "max-request", "", "maximum bytes of one request's inputs and outputs, up to 1Gi (default 256Mi)")
	f.StringVar(&o.servedAs, "served-as", "", "name that clients use; several versions may share it (default: the model's name)")
	f.IntVar(&traffic, "traffic", 0, "percentage of the requests without a version that it gets (default: what other versions leave)")
	f.BoolVar(&o.shadow, "shadow", false, "send it copies of other versions' requests, and discard its answers")
	f.StringVar(&o.version, "version", "", "version that clients see (default 1)")
	f.StringVar(&o.engine, "engine", "", "engine that runs it (default: by the file's format)")
	f.Var((*optionFlag)(&o.options), "option", "what the engine must know besides the file, as NAME=VALUE")
	f.BoolVar(&o.onDemand, "on-demand", false, "load the model at its first request, and unload it when it is not used")
	f.IntVar(&o.instances, "instances", 0, "how many workers load the model, each with --cpu and --memory for itself (default 1)")
	f.DurationVar(&o.idleTimeout, "idle-timeout", 0, "with --on-demand, how long without a request until it is unloaded (default 5m)")
	f.DurationVar(&o.wait, "wait", 5*time.Minute, "how long to wait until it answers; 0 does not wait")
	f.BoolVar(&o.plainHTTP, "plain-http", false, "ask the registry of a reference without TLS, which those on the way can read and change")
	o.s3.add(c)
	f.BoolVar(&o.dryRun, "dry-run", false, "print the Model manifest and do nothing; a file's digest is shown as zeros")
	return c
}

// run serves the model at a path or URL, or with dryRun prints its manifest.
func (o *serveOptions) run(ctx context.Context, env *Env, path string) (*object.ModelStatus, error) {
	if err := o.s3.check(path); err != nil {
		return nil, err
	}
	if artifact.Is(path) || object.IsS3(path) {
		source, local, err := sourceOf(path)
		switch {
		case err != nil:
			return nil, err
		case object.IsS3(source):
			in, _ := object.ParseS3(source)
			return o.runSource(ctx, env, source, modelName(in.Key))
		case local == nil:
			r, _ := artifact.Parse(source)
			return o.runSource(ctx, env, source, nameOf(r))
		}
		o.name = cmp.Or(o.name, nameOf(*local))
		file, remove, err := fetchModel(ctx, env, *local, artifact.Access{})
		if err != nil {
			return nil, err
		}
		defer remove()
		path = file
	}
	if scheme, _, ok := strings.Cut(path, "://"); ok && !isURL(path) {
		if _, err := os.Stat(path); err != nil {
			return nil, usageError{fmt.Errorf("%s: nothing is fetched by %s: give a URL with http:// or https://, a reference with oci:// or s3://, or a file", path, scheme)}
		}
	}
	if triton.Is(path) {
		return nil, fmt.Errorf("%[1]s is a Triton model repository: oscine model import %[1]s serves its models", path)
	}
	if isURL(path) {
		file, err := download(ctx, env, path)
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(filepath.Dir(file))
		path = file
	}
	if o.name == "" {
		o.name = modelName(path)
	}
	if err := o.planMemory(path, env.Err); err != nil {
		return nil, err
	}
	text, err := o.manifest(path, "sha256:"+strings.Repeat("0", 64))
	if err != nil {
		return nil, err
	}
	source, err := findModel(path)
	if err != nil {
		return nil, err
	}
	if o.dryRun {
		_, err := fmt.Fprint(env.Out, text)
		return nil, err
	}
	node, err := env.Client()
	if err != nil {
		return nil, err
	}
	source.tell(env.Err)
	return o.serve(ctx, env, node, source)
}

// modelName makes a name of a file's or folder's.
func modelName(file string) string {
	base := filepath.Base(file)
	if whole, err := filepath.Abs(file); err == nil {
		base = filepath.Base(whole) // of "." too
	}
	base = strings.TrimSuffix(base, filepath.Ext(base))
	return strings.Trim(notInName.ReplaceAllString(strings.ToLower(base), "-"), "-")
}

// formatOf is the ending of a file's name, where it can be one of a format. What
// is in a folder tells more than the folder's name.
func formatOf(file string) string {
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		return ""
	}
	ending := strings.ToLower(filepath.Ext(file))
	if len(ending) < 2 || len(ending) > 20 || strings.Trim(ending[1:], "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return ""
	}
	return ending
}

// manifest writes the Model that the flags describe, checked like any other.
func (o *serveOptions) manifest(file, digest string) (string, error) {
	spec, resources := map[string]any{"source": digest}, map[string]any{}
	for field, value := range map[string]string{"class": o.class, "version": o.version, "engine": o.engine, "format": formatOf(file), "maxRequest": o.maxRequest} {
		if value != "" {
			spec[field] = value
		}
	}
	for field, value := range map[string]string{"cpu": o.cpu, "memory": o.memory} {
		if value != "" {
			resources[field] = value
		}
	}
	if o.instances != 0 {
		spec["instances"] = o.instances
	}
	if o.onDemand {
		spec["load"] = string(object.LoadOnDemand)
	}
	if o.idleTimeout != 0 {
		spec["idleTimeout"] = o.idleTimeout.String()
	}
	var devices []map[string]any
	for i, selector := range o.devices {
		devices = append(devices, map[string]any{"name": fmt.Sprintf("device%d", i+1), "selector": selector})
	}
	if len(devices) > 0 {
		resources["devices"] = devices
	}
	if s3 := o.s3.spec(); s3 != nil {
		spec["s3"] = s3
	}
	if o.servedAs != "" {
		spec["servedAs"] = o.servedAs
	}
	if o.traffic != nil {
		spec["traffic"] = *o.traffic
	}
	if o.shadow {
		spec["shadow"] = true
	}
	if _, _, err := channel.SplitOptions(o.options); err != nil {
		return "", usageError{err}
	}
	if len(o.options) > 0 {
		spec["options"] = o.options
	}
	if len(resources) > 0 {
		spec["resources"] = resources
	}
	return objectFromFlags(object.KindModel, o.name, spec)
}

// serve uploads and applies the model and waits for it.
func (o *serveOptions) serve(ctx context.Context, env *Env, node *client.Client, source *modelSource) (*object.ModelStatus, error) {
	digest, err := source.upload(ctx, env, node)
	if err != nil {
		return nil, err
	}
	text, err := o.manifest(source.path, digest)
	if err != nil {
		return nil, err
	}
	return o.apply(ctx, env, node, text)
}

// apply applies the model's manifest and waits for it.
func (o *serveOptions) apply(ctx context.Context, env *Env, node *client.Client, text string) (*object.ModelStatus, error) {
	resp, err := node.Objects.Apply(ctx, connect.NewRequest(&pb.ApplyRequest{Manifest: text}))
	if err != nil {
		return nil, err
	}
	tellDisplaced(env.Err, resp.Msg.Results)
	if o.wait == 0 {
		return nil, nil
	}
	waiting, cancel := context.WithTimeout(ctx, o.wait)
	defer cancel()
	status, err := awaitModel(waiting, env, node, object.Key{Kind: object.KindModel, Name: o.name})
	if ctx.Err() == nil && errors.Is(waiting.Err(), context.DeadlineExceeded) {
		return nil, fmt.Errorf("model %s does not answer after %v; it goes on trying: oscine describe model %s", o.name, o.wait, o.name)
	}
	return status, err
}

// awaitModel watches a model until it answers; what keeps it from that for
// good is an error.
func awaitModel(ctx context.Context, env *Env, node *client.Client, key object.Key) (st *object.ModelStatus, err error) {
	wait := newWaiting(env, "model "+key.Name)
	defer wait.done()
	err = node.Watch(ctx, env.Kinds, key, func(state object.State) (bool, error) {
		var ok bool
		if st, ok = state.Status.(*object.ModelStatus); !ok {
			return false, fmt.Errorf("the node sent %s without its status", key)
		}
		wait.tell(waitsFor(key, &st.Observed))
		m, ok := state.Object.(*object.Model)
		if ok && m.Spec.Ensemble != nil && st.Phase == object.Waiting {
			return true, nil // for the models of its steps
		}
		switch st.Phase {
		case object.Waiting, object.Unplaced, object.Failed:
			err := fmt.Errorf("model %s: %s\n(it stays applied, and is tried again; oscine delete model %s forgets it)", key.Name, st.Message, key.Name)
			if st.Phase == object.Unplaced {
				err = noRoom{err}
			}
			return false, err
		}
		if update := st.Update; update != nil && update.Phase == object.Failed {
			return false, fmt.Errorf("model %s: the new manifest is not served, version %s still answers: %s", key.Name, st.Version, update.Message)
		}
		return st.Phase != object.Running && st.Phase != object.Idle || ok && (st.Source != m.Spec.Source || st.Version != m.Spec.Version), nil
	})
	return st, err
}

// report tells where the model runs and how to use it.
func (o *serveOptions) report(ctx context.Context, env *Env, status *object.ModelStatus) error {
	if status == nil {
		fmt.Fprintf(env.Out, "model/%s applied\n", o.name)
		return nil
	}
	if status.Phase == object.Idle {
		fmt.Fprintf(env.Out, "model/%s is loaded by its next request\n", o.name)
	} else {
		fmt.Fprintf(env.Out, "model/%s is served by %s on CPUs %s\n", o.name, status.Engine, status.CPUs())
	}
	if p := status.Placement; p != nil && p.Reason != "" {
		fmt.Fprintf(env.Out, "  placed there: %s\n", p.Reason)
	}
	node, err := env.Client()
	if err != nil {
		return err
	}
	served := cmp.Or(o.servedAs, o.name)
	server := inferenceOf(node)
	switch o.task {
	case "":
		try := served + " -f REQUEST.json"
		if status.Phase != object.Idle && takesPictures(ctx, server, served) { // asking would load it
			try = served + " PICTURE.png"
		}
		fmt.Fprintf(env.Out, "  endpoint: %s/v2/models/%s/infer\n  try: oscine infer %s\n", server.URL, served, try)
	case gguf.Generate:
		fmt.Fprintf(env.Out, "  endpoint: %s/v1\n  try: oscine chat %s\n", server.URL, served)
	default:
		fmt.Fprintf(env.Out, "  endpoint: %s%s, model %s\n", server.URL, map[gguf.Task]string{gguf.Embed: language.Embeddings, gguf.Rerank: language.Rerank}[o.task], served)
	}
	return nil
}

func takesPictures(ctx context.Context, server *oip.Client, name string) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	model, err := server.Model(ctx, name)
	return err == nil && len(model.Inputs) == 1 && picture.Is(model.Inputs[0])
}
