package triton

//go:generate sh -c "protoc -I proto --plugin=protoc-gen-go=$(go tool -n protoc-gen-go) --go_out=modelconfigpb --go_opt=module=oscine.dev/oscine/internal/serve/triton/modelconfigpb proto/model_config.proto"
