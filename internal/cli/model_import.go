package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/printable"
	"oscine.dev/oscine/internal/serve/triton"
)

// importOptions are the flags of model import.
type importOptions struct {
	class, cpu, memory string
	onDemand           bool
	ignored            []string
	wait               time.Duration
	dryRun             bool
}

func newModelImportCommand(env *Env) *cobra.Command {
	var o importOptions
	c := &cobra.Command{
		Use: "import FOLDER", Short: "Serve the models of a Triton model repository",
		Long: `Serve the models of a Triton model repository, or the one model whose folder is given: NAME/config.pbtxt and
NAME/1/model.onnx. Each version that its policy serves becomes a Model, which clients find under the folder's name. What the
node already has is not sent again; the same command later updates what has changed. A configuration that asks for
something that is not supported is an error, and nothing is sent; --ignore imports the model without that field.
docs/models.md lists the fields.`,
		Example: "  oscine model import ./model_repository\n  oscine model import ./model_repository/densenet_onnx --cpu 2\n  oscine model import ./model_repository --ignore instance_group.count --dry-run",
		Args:    exactArgs(1, "the folder of a model repository"),
		RunE: func(c *cobra.Command, args []string) error {
			return o.run(c.Context(), env, args[0])
		},
	}
	f := c.Flags()
	f.StringVar(&o.class, "class", "", "realtime, interactive or batch, for every model")
	f.StringVar(&o.cpu, "cpu", "", "cores for every model whose configuration names no threads (default 100m, or 1 with class realtime)")
	f.StringVar(&o.memory, "memory", "", "memory limit of every model, such as 256Mi")
	f.BoolVar(&o.onDemand, "on-demand", false, "load every model at its first request, and unload it when it is not used")
	f.StringSliceVar(&o.ignored, "ignore", nil, "fields of config.pbtxt to do without, such as instance_group.count")
	f.DurationVar(&o.wait, "wait", 5*time.Minute, "how long to wait until all answer; 0 does not wait")
	f.BoolVar(&o.dryRun, "dry-run", false, "print the Model manifests, with empty digests, and do nothing")
	return c
}

// imported is one version of a model that is imported.
type imported struct {
	triton.Version
	files *modelSource // nil: an ensemble has none
}

func (o *importOptions) run(ctx context.Context, env *Env, dir string) error {
	versions, err := triton.Read(dir, o.ignored)
	if err != nil {
		return err
	}
	models := make([]imported, len(versions))
	var manifests []string
	for i, v := range versions {
		models[i] = imported{Version: v}
		digest := ""
		if v.Source != "" {
			digest = "sha256:" + strings.Repeat("0", 64)
			if models[i].files, err = findModel(v.Source); err != nil {
				return err
			}
		}
		text, err := o.manifest(&v.Model, digest)
		if err != nil {
			return fmt.Errorf("model %s: %w", v.Model.Metadata.Name, err)
		}
		manifests = append(manifests, text)
	}
	tellWithout(env.Err, versions)
	if o.dryRun {
		_, err := io.WriteString(env.Out, strings.Join(manifests, "---\n"))
		return err
	}
	node, err := env.Client()
	if err != nil {
		return err
	}
	if err := checkReplaced(ctx, env, node, models); err != nil {
		return err
	}
	for i, m := range models {
		if m.files == nil {
			continue
		}
		digest, err := m.files.upload(ctx, env, node)
		if err != nil {
			return err
		}
		if manifests[i], err = o.manifest(&m.Model, digest); err != nil {
			return err
		}
	}
	return o.apply(ctx, env, node, models, strings.Join(manifests, "---\n"))
}

// checkReplaced refuses to replace a Model that clients know by another name.
func checkReplaced(ctx context.Context, env *Env, node *client.Client, models []imported) error {
	resp, err := node.Objects.Get(ctx, connect.NewRequest(&pb.GetRequest{Kind: string(object.KindModel)}))
	if err != nil {
		return err
	}
	there := map[string]string{}
	for _, obj := range resp.Msg.Objects {
		state, err := client.State(env.Kinds, obj)
		if err != nil {
			return err
		}
		if m, ok := state.Object.(*object.Model); ok {
			there[obj.Name] = m.ServedName()
		}
	}
	for i := range models {
		m := &models[i].Model
		if served, ok := there[m.Metadata.Name]; ok && served != m.ServedName() {
			return fmt.Errorf("model %s would take the place of the Model %s, which clients know as %s: rename the folder, or delete that one first: oscine delete model %[2]s", m.ServedName(), m.Metadata.Name, served)
		}
	}
	return nil
}

// tellWithout says which fields have no effect, once for each model.
func tellWithout(w io.Writer, versions []triton.Version) {
	last := ""
	for i := range versions {
		m := &versions[i].Model
		name := m.ServedName()
		if len(versions[i].Without) > 0 && name != last {
			fmt.Fprintf(w, "model %s: no effect here: %s\n", name, strings.Join(versions[i].Without, ", "))
		}
		last = name
	}
}

// manifest writes a model that was read, with what the flags say, checked like any
// other.
func (o *importOptions) manifest(m *object.Model, digest string) (string, error) {
	model := *m
	model.Spec.Source = digest
	raw, err := json.Marshal(model.Spec)
	if err != nil {
		return "", err
	}
	spec := map[string]any{}
	if err := json.Unmarshal(raw, &spec); err != nil {
		return "", err
	}
	if model.Spec.Ensemble == nil {
		if o.class != "" {
			spec["class"] = o.class
		}
		if o.onDemand {
			spec["load"] = string(object.LoadOnDemand)
		}
		resources, _ := spec["resources"].(map[string]any)
		for field, value := range map[string]string{"cpu": o.cpu, "memory": o.memory} {
			if value == "" || resources[field] != nil {
				continue
			}
			if resources == nil {
				resources = map[string]any{}
			}
			resources[field] = value
		}
		if len(resources) > 0 {
			spec["resources"] = resources
		}
	}
	return objectFromFlags(object.KindModel, model.Metadata.Name, spec)
}

// apply applies all manifests together and waits for the models.
func (o *importOptions) apply(ctx context.Context, env *Env, node *client.Client, models []imported, text string) error {
	resp, err := node.Objects.Apply(ctx, connect.NewRequest(&pb.ApplyRequest{Manifest: text}))
	if err != nil {
		return err
	}
	tellDisplaced(env.Err, resp.Msg.Results)
	waiting, cancel := context.WithTimeout(ctx, o.wait)
	defer cancel()
	var errs []error
	last := func(m imported) bool { return m.files == nil } // ensembles wait for the others
	models = slices.Concat(slices.DeleteFunc(slices.Clone(models), last), slices.DeleteFunc(models, func(m imported) bool { return !last(m) }))
	for i := range models {
		m := &models[i].Model
		if o.wait == 0 {
			fmt.Fprintf(env.Out, "model/%s applied\n", m.Metadata.Name)
			continue
		}
		status, err := awaitModel(waiting, env, node, m.Key())
		switch {
		case ctx.Err() == nil && errors.Is(waiting.Err(), context.DeadlineExceeded):
			return errors.Join(append(errs, fmt.Errorf("model %s does not answer after %v; it goes on trying: oscine describe model %[1]s", m.Metadata.Name, o.wait))...)
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			errs = append(errs, err)
		default:
			engine := cmp.Or(status.Engine, "a worker that its next request starts")
			if m.Spec.Ensemble != nil {
				engine = "its steps"
			}
			fmt.Fprintf(env.Out, "model/%s is served as %s version %s by %s\n", m.Metadata.Name, m.ServedName(), m.Spec.Version, printable.Text(engine))
		}
	}
	return errors.Join(errs...)
}
