package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/structpb"

	"oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/hardware"
	"oscine.dev/oscine/internal/inventory"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/place"
)

const displaceHelp = "let work of the classes realtime and interactive be stopped to make room, as batch work always is"

// onNode asks a node what applying the objects would come to. name is the
// context's, "" for the current one.
func (f *placeFlags) onNode(ctx context.Context, env *Env, name, manifest string, objects []object.Object) ([]placed, error) {
	named := *env
	named.Context = name
	node, err := named.Client()
	if err != nil && f.machine != "" {
		err = fmt.Errorf("--machine %s is neither a file here nor a context: %w", name, err)
	}
	if err != nil {
		return nil, err
	}
	resp, err := node.Objects.Apply(ctx, connect.NewRequest(&oscinepb.ApplyRequest{Manifest: manifest, DryRun: true, Displace: f.displace}))
	if err != nil {
		return nil, err
	}
	results := make([]placed, len(resp.Msg.Results))
	refused := false
	for i, r := range resp.Msg.Results {
		if results[i], err = placedOf(r); err != nil {
			return nil, err
		}
		refused = refused || results[i].Refusal != nil
	}
	if f.defrag && refused {
		return results, f.addMoves(ctx, env, node, results, objects)
	}
	return results, nil
}

// placedOf reads what a node says that became of an object.
func placedOf(r *oscinepb.ApplyResult) (placed, error) {
	result := placed{Object: object.Key{Kind: object.Kind(r.Kind), Name: r.Name}.ID()}
	read := func(from *structpb.Struct, into any) error {
		raw, err := from.MarshalJSON()
		if err == nil {
			err = json.Unmarshal(raw, into)
		}
		if err != nil {
			return fmt.Errorf("what the node says of %s is not understood: %w", result.Object, err)
		}
		return nil
	}
	for _, d := range r.Displaces {
		result.Displaces = append(result.Displaces, displaced{objectName(d.Kind, d.Name), d.Why})
	}
	switch {
	case r.Placement != nil && r.Unplaced == "": // else of some instances only
		result.Placement = &place.Placement{}
		return result, read(r.Placement, result.Placement)
	case r.Refusal != nil:
		result.Refusal = &place.Unsatisfied{}
		return result, read(r.Refusal, result.Refusal)
	}
	result.Waits = r.Unplaced
	return result, nil
}

// objectName is KIND/NAME as commands print it.
func objectName(kind, name string) string {
	return strings.TrimPrefix(strings.ToLower(kind)+"/"+name, "/")
}

// addMoves finds what to move on a node so that the objects which it refused
// would fit.
func (f *placeFlags) addMoves(ctx context.Context, env *Env, node *client.Client, results []placed, objects []object.Object) error {
	state, err := nodeState(ctx, env, node, objects)
	if err != nil {
		return err
	}
	for i, obj := range objects {
		req, err := object.PlaceRequest(obj.(object.Placeable)) // run has refused others
		if err != nil || i >= len(results) {
			return err
		}
		if results[i].Refusal == nil {
			for _, one := range object.Instances(obj) {
				if req, err = object.PlaceRequest(one.(object.Placeable)); err != nil {
					return err
				}
				if _, err := state.Place(ctx, req); err != nil {
					return err
				}
			}
			continue
		}
		tried, err := f.placeTogether(ctx, state, []place.Request{req})
		if err != nil {
			return err
		}
		results[i].Moves = tried[0].Moves
	}
	return nil
}

// nodeState is a node's machine with all that it runs, but not the objects
// that are about to be placed.
func nodeState(ctx context.Context, env *Env, node *client.Client, objects []object.Object) (*place.State, error) {
	reply, err := node.Hardware.Describe(ctx, connect.NewRequest(&oscinepb.HardwareRequest{}))
	if err != nil {
		return nil, err
	}
	m, err := hardware.Decode(reply.Msg.GetJson())
	if err != nil {
		return nil, err
	}
	state, err := inventory.State(m, m.System.Product)
	if err != nil {
		return nil, err
	}
	running, err := node.Objects.Get(ctx, connect.NewRequest(&oscinepb.GetRequest{}))
	if err != nil {
		return nil, err
	}
	replaced := map[object.Key]bool{}
	for _, obj := range objects {
		replaced[obj.Key()] = true
	}
	for _, o := range running.Msg.GetObjects() {
		running, err := client.State(env.Kinds, o)
		if err != nil {
			return nil, fmt.Errorf("what runs on the node: %w", err)
		}
		p, ok := running.Object.(object.Placeable)
		if !ok || replaced[p.Key()] {
			continue
		}
		for _, one := range object.Instances(p) {
			req, err := object.PlaceRequest(one.(object.Placeable))
			if err != nil {
				return nil, err
			}
			if _, err := state.PlaceRunning(ctx, req); err != nil {
				fmt.Fprintf(env.Err, "oscine: %s runs on the node but is left out here: %v\n", req.Name, err)
			}
		}
	}
	return state, nil
}
