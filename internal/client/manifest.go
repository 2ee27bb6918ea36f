package client

import (
	"encoding/json"
	"fmt"
	"maps"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/structpb"

	pb "oscine.dev/oscine/internal/api/oscinepb"
)

// ManifestJSON is the object as apply takes it, with its status beside, which
// apply passes over.
func ManifestJSON(obj *pb.Object) (json.RawMessage, error) {
	fields := map[string]*structpb.Value{}
	maps.Copy(fields, obj.GetManifest().GetFields())
	if obj.Status != nil {
		fields["status"] = structpb.NewStructValue(obj.Status)
	}
	raw, err := (&structpb.Struct{Fields: fields}).MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", obj.GetKind(), obj.GetName(), err)
	}
	return raw, nil
}

// BlockYAML writes JSON as YAML in block style, each number as it is spelt.
func BlockYAML(raw []byte) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		return nil, err
	}
	plain(&doc)
	return yaml.Marshal(&doc)
}

func plain(n *yaml.Node) {
	n.Style = 0
	for _, child := range n.Content {
		plain(child)
	}
}
