package oip

//go:generate sh -c "protoc -I proto --plugin=protoc-gen-go=$(go tool -n protoc-gen-go) --go_out=inferencepb --go_opt=module=oscine.dev/oscine/internal/serve/front/oip/inferencepb proto/inference.proto"
