package api

//go:generate sh -c "protoc -I . --plugin=protoc-gen-go=$(go tool -n protoc-gen-go) --plugin=protoc-gen-connect-go=$(go tool -n protoc-gen-connect-go) --go_out=oscinepb --go_opt=paths=source_relative --connect-go_out=oscinepb --connect-go_opt=paths=source_relative oscine.proto"
