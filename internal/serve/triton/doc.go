// Package triton reads Triton's model repositories: folders of models with their
// versions and config.pbtxt, as the Models that serve them. What a configuration
// asks for and Oscine does not do is an error that names the field. It asks no node
// and sends nothing.
//
// Source: docs/user_guide/model_repository.md and model_configuration.md of
// github.com/triton-inference-server/server; proto/model_config.proto.
package triton
