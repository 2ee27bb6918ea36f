package node

import (
	"path/filepath"
	"time"

	"oscine.dev/oscine/internal/node/kind/model"
	"oscine.dev/oscine/internal/node/kind/secret"
	"oscine.dev/oscine/internal/node/kind/workload"
	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/signature"
)

// controllers has a line for each kind: what makes its objects run. It is the
// node's half of the table in package object.
func (n *Node) controllers() map[object.Kind]reconcile.NewController {
	logBytes, _ := n.machine.Spec.Logs.MaxSize.Value() // checked when the file was read
	workloads := &workload.Options{
		Sandbox: n.box, Images: images{n.runtime, n.secrets().login}, Secrets: n.secrets(), Packs: n.packs, Disk: n.disk, Volumes: filepath.Join(n.config.StateDir, "volumes"), Inference: n.inferenceDir(),
		LogBytes: logBytes, Log: n.log, Now: time.Now,
	}
	models := &model.Options{
		Sandbox: n.box, Server: server{n.registry, n.isolator}, Paths: workerPaths(), Packs: n.packs, Device: n.device, Protocols: channel.Versions(), Files: n.files, Registries: n.registries(false), Bucket: n.secrets().bucket, SignedBy: signedBy(n.machine.Spec.Models.SignedBy), Choices: n.choices,
		Sockets: n.socketsDir(), LogBytes: logBytes, Log: n.log, Life: n.life,
	}
	return map[object.Kind]reconcile.NewController{
		object.KindWorkload: func(key object.Key, r reconcile.Reporter) reconcile.Controller {
			return workload.New(workloads, key, r)
		},
		object.KindSecret: secret.New,
		object.KindModel:  func(key object.Key, r reconcile.Reporter) reconcile.Controller { return model.New(models, key, r) },
	}
}

// signedBy returns the keys of a list that was checked when the file was read, nil for none.
func signedBy(list []string) *signature.Keys {
	if len(list) == 0 {
		return nil
	}
	keys, err := signature.ParseKeys(list...)
	if err != nil {
		return &signature.Keys{} // trusts nobody
	}
	return keys
}
