package client

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/structpb"

	pb "oscine.dev/oscine/internal/api/oscinepb"
	"oscine.dev/oscine/internal/object"
)

// State reads an object as a node sent it.
func State(kinds object.Table, o *pb.Object) (object.State, error) {
	key := object.Key{Kind: object.Kind(o.GetKind()), Name: o.GetName()}
	manifest, err := raw(o.GetManifest())
	if err != nil {
		return object.State{}, fmt.Errorf("%s: %w", key, err)
	}
	status, err := raw(o.GetStatus())
	if err != nil {
		return object.State{}, fmt.Errorf("the status of %s: %w", key, err)
	}
	return kinds.DecodeState(key, manifest, status)
}

func raw(s *structpb.Struct) ([]byte, error) {
	if s == nil {
		return nil, nil
	}
	return s.MarshalJSON()
}

// Watch calls each with the object now and after every change of it, until
// each returns false or an error, the object is deleted, or ctx ends. It
// returns each's error, and one that says so for a deletion.
func (c *Client) Watch(ctx context.Context, kinds object.Table, key object.Key, each func(object.State) (bool, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Objects.Watch(ctx, connect.NewRequest(&pb.GetRequest{Kind: string(key.Kind), Name: key.Name}))
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		m := stream.Msg()
		if m.GetEvent() == "deleted" {
			return fmt.Errorf("%s was deleted meanwhile", key)
		}
		state, err := State(kinds, m.GetObject())
		if err != nil {
			return err
		}
		if goOn, err := each(state); err != nil || !goOn {
			return err
		}
	}
	if err := stream.Err(); err != nil {
		return err
	}
	return fmt.Errorf("the node stopped reporting %s", key)
}
