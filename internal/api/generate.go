package api

//go:generate sh -c "rm -f oscinepb/*.pb.go oscinepb/oscinepbconnect/*.go && protoc -I proto --plugin=protoc-gen-go=$(go tool -n protoc-gen-go) --plugin=protoc-gen-connect-go=$(go tool -n protoc-gen-connect-go) --go_out=oscinepb --go_opt=module=oscine.dev/oscine/internal/api/oscinepb --connect-go_out=oscinepb --connect-go_opt=module=oscine.dev/oscine/internal/api/oscinepb proto/oscine/v1/*.proto"
