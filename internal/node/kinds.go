package node

import (
	"log/slog"
	"path/filepath"
	"time"

	"oscine.dev/oscine/internal/node/kind/model"
	"oscine.dev/oscine/internal/node/kind/secret"
	"oscine.dev/oscine/internal/node/kind/workload"
	"oscine.dev/oscine/internal/node/reconcile"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/serve/channel"
	"oscine.dev/oscine/internal/signature"
	"oscine.dev/oscine/internal/signature/keyless"
)

// controllers has a line for each kind: what makes its objects run. It is the
// node's half of the table in package object.
func (n *Node) controllers() map[object.Kind]reconcile.NewController {
	signedBy, root := signers(n.machine.Spec.Models, n.log)
	logBytes, _ := n.machine.Spec.Logs.MaxSize.Value() // checked when the file was read
	workloads := &workload.Options{
		Sandbox: n.box, Images: images{n.runtime, n.secrets().login}, Secrets: n.secrets(), Packs: n.packs, Disk: n.disk, Volumes: filepath.Join(n.config.StateDir, "volumes"), Inference: n.inferenceDir(),
		LogBytes: logBytes, Log: n.log, Now: time.Now,
	}
	models := &model.Options{
		Sandbox: n.box, Server: server{n.registry, n.isolator}, Paths: workerPaths(), Packs: n.packs, Device: n.device, Protocols: channel.Versions(), Files: n.files, Registries: n.registries(false), Bucket: n.secrets().bucket, SignedBy: signedBy, TrustedRoot: root, Choices: n.choices, Moving: make(chan struct{}, 1),
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

// signers returns who must have signed models, nil for nobody, and the trusted root, nil for
// none.
func signers(m object.MachineModels, log *slog.Logger) (*signature.Keys, signature.Root) {
	var root signature.Root
	if m.TrustedRoot != "" {
		if r, err := keyless.ParseRoot([]byte(m.TrustedRoot)); err == nil {
			root = r
		} else { // no identity is trusted
			log.Error("no keyless signature can be verified: replace the Machine's spec.models.trustedRoot", "error", err)
		}
	}
	if len(m.SignedBy) == 0 {
		return nil, root
	}
	keys, err := object.Signers(root, m.SignedBy)
	if err != nil {
		return &signature.Keys{}, root // trusts nobody
	}
	return keys, root
}
