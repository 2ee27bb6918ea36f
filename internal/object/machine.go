package object

import (
	"errors"
	"io"

	"oscine.dev/oscine/internal/pattern"
)

// KindMachine is the kind of Machine.
const KindMachine Kind = "Machine"

func machineKind() Definition {
	return Definition{
		Kind: KindMachine, New: func() Object { return &Machine{} },
		NotApplied: "a Machine must be alone in its manifest, and only an admin can apply it: oscine config show prints the node's",
	}
}

// Machine is the configuration of one node; with the signed release it is all
// that a node is.
type Machine struct {
	Header
	Spec MachineSpec `json:"spec"`
}

// MachineSpec configures a node.
type MachineSpec struct {
	Hostname  string         `json:"hostname,omitempty"` // default: metadata.name
	Network   MachineNet     `json:"network,omitzero"`
	Time      MachineTime    `json:"time,omitzero"`
	API       MachineAPI     `json:"api"`
	Inference *Inference     `json:"inference,omitempty"`
	Metrics   *Metrics       `json:"metrics,omitempty"`
	Tracing   *Tracing       `json:"tracing,omitempty"`
	Logs      MachineLogs    `json:"logs,omitzero"`
	Images    MachineImages  `json:"images,omitzero"`
	Models    MachineModels  `json:"models,omitzero"`
	Classes   MachineClasses `json:"classes,omitzero"`
	Storage   MachineStorage `json:"storage,omitzero"`
	// HugePages are set aside when the daemon starts, while memory is in one
	// piece: page size → bytes, such as 2Mi: 1Gi. Workloads are given of them.
	HugePages map[Quantity]Quantity `json:"hugePages,omitempty"`
	Update    MachineUpdate         `json:"update,omitzero"`
	// Sysctls are kernel parameters by name, such as
	// net.core.rmem_max: "16777216"; on the image only.
	Sysctls map[string]string `json:"sysctls,omitempty"`
	// KernelModules are loaded when the daemon starts, in this order; on the image only.
	KernelModules []KernelModule `json:"kernelModules,omitempty"`
	Proxy         *MachineProxy  `json:"proxy,omitempty"`
	// CACertificates are certificates of authorities in PEM that the node trusts in addition to the public
	// ones when it fetches images, releases and models.
	CACertificates string `json:"caCertificates,omitempty"`
}

// MachineTime configures NTP.
type MachineTime struct {
	Servers  []string `json:"servers,omitempty"`  // default: those from DHCP, else 2.debian.pool.ntp.org
	Disabled bool     `json:"disabled,omitempty"` // leave the clock alone
}

// MachineAPI holds the node's identity and the authority of its clients, in PEM.
// If key is absent, the certificate is for the key that the node generated, which
// never leaves it; if certificate is absent too, the node requests one, and an
// admin of the CA signs it. A file with a key is a secret: create it where the
// node runs.
type MachineAPI struct {
	Port        int      `json:"port,omitempty"`        // default 7443
	CA          string   `json:"ca"`                    // signs clients and nodes
	Hosts       []string `json:"hosts,omitempty"`       // names and addresses in the certificate that the node requests (subject alternative names)
	JoinToken   string   `json:"joinToken,omitempty"`   // secret by which a node that requests a certificate proves that it has this manifest; unused afterwards
	Certificate string   `json:"certificate,omitempty"` // of the node, signed by the CA; if absent, the node requests one
	Key         string   `json:"key,omitempty"`         // of the certificate; if absent, the node generates it
}

// Inference opens an endpoint for inference requests without client
// certificates.
type Inference struct {
	Port int `json:"port"` // HTTP and gRPC
	// Tokens says who is let in: with optional, the default, anyone, though a token
	// that is sent must be valid; with required, only clients with a token. See
	// oscine token create.
	Tokens TokenUse `json:"tokens,omitempty"`
	// TLS encrypts with the node's certificate, so that tokens can't be read on the
	// network. Clients trust the cluster's authority, ca.crt.
	TLS bool `json:"tls,omitempty"`
}

// TokenUse says whether clients need a token.
type TokenUse string

// The uses of tokens.
const (
	TokensOptional TokenUse = "optional"
	TokensRequired TokenUse = "required"
)

// Metrics opens an endpoint for Prometheus without client certificates, on
// purpose.
type Metrics struct {
	Port int `json:"port"` // plain HTTP, open to all
}

// MachineLogs bounds the logs on the data partition.
type MachineLogs struct {
	MaxSize Quantity `json:"maxSize,omitzero"` // of each source; default 8Mi
}

// MachineImages says which images may be pulled, and from where.
type MachineImages struct {
	Allow   []string         `json:"allow,omitempty"`   // reference prefixes; default: all
	Mirrors []RegistryMirror `json:"mirrors,omitempty"` // asked before a registry itself
}

// MachineModels says which models may be served.
type MachineModels struct {
	// SignedBy are public keys, certificates of authorities, or identities of Sigstore. With any, a
	// model is served only if one of them signed it: with OpenSSF model signing, or in a registry
	// with cosign. An entry that is a text is a key. Files of a release are signed with it. Default: models need no signature.
	SignedBy []Signer `json:"signedBy,omitempty"`
	// TrustedRoot is the content of a trusted_root.json of Sigstore, by which keyless signatures are verified; default:
	// none, and no identity is known to have signed.
	TrustedRoot string `json:"trustedRoot,omitempty"`
}

// MachineStorage says how the data partition is kept, on the image only.
type MachineStorage struct {
	// Encryption, with tpm, encrypts the data partition with a key that the machine's TPM 2.0 releases to what it
	// started before, and to a recovery key (oscine recovery-key create). It is set when a node is configured for the
	// first time; later it changes only with oscine reset or a new installation, which erase all data. Default: not
	// encrypted. See docs/trust.md.
	Encryption DataEncryption `json:"encryption,omitempty"`
}

// DataEncryption is how a data partition is encrypted.
type DataEncryption string

// EncryptionTPM has the TPM keep the key.
const EncryptionTPM DataEncryption = "tpm"

// ParseMachine reads a stream that must hold one Machine and nothing else.
func ParseMachine(r io.Reader) (*Machine, error) {
	objects, err := Kinds().Parse(r)
	if err != nil {
		return nil, err
	}
	machine, ok := objects[0].(*Machine)
	if !ok || len(objects) != 1 {
		return nil, errors.New("must hold one Machine and nothing else")
	}
	return machine, nil
}

// apiPort is where nodes answer unless their Machine says otherwise.
const apiPort = 7443

// SetDefaults implements Object.
func (m *Machine) SetDefaults() {
	setDefault(&m.Spec.Hostname, m.Metadata.Name)
	setDefault(&m.Spec.API.Port, apiPort)
	if m.Spec.Logs.MaxSize.IsZero() {
		m.Spec.Logs.MaxSize = literal("8Mi")
	}
	m.Spec.Update.SetDefaults()
}

var hostnameRE = pattern.New(`^[a-zA-Z0-9]([-a-zA-Z0-9.]{0,61}[a-zA-Z0-9])?$`)

// Check implements Object.
func (m *Machine) Check(c *Checker) {
	s := &m.Spec
	if s.Hostname != "" && !hostnameRE.MatchString(s.Hostname) {
		c.Bad("spec.hostname", "%q is not a host name", s.Hostname)
	}
	if s.API.Port != 0 {
		c.Port("spec.api.port", s.API.Port)
	}
	if s.Inference != nil {
		c.Port("spec.inference.port", s.Inference.Port)
		c.OneOf("spec.inference.tokens", string(s.Inference.Tokens), string(TokensOptional), string(TokensRequired))
		if s.Inference.Port == s.API.Port {
			c.Bad("spec.inference.port", "is the API's port already")
		}
	}
	if s.Metrics != nil {
		c.Port("spec.metrics.port", s.Metrics.Port)
		if s.Metrics.Port == s.API.Port {
			c.Bad("spec.metrics.port", "is the API's port already, where readers find /metrics too")
		}
		if s.Inference != nil && s.Metrics.Port == s.Inference.Port {
			c.Bad("spec.metrics.port", "is the port of spec.inference already")
		}
	}
	if s.Tracing != nil {
		s.Tracing.check(c)
	}
	checkIdentity(c, "spec.api", s.API)
	s.Network.check(c, "spec.network")
	if size, ok := s.Logs.MaxSize.Value(); !ok || (!s.Logs.MaxSize.IsZero() && size < 64<<10) {
		c.Bad("spec.logs.maxSize", "must be at least 64Ki, got %s", s.Logs.MaxSize)
	}
	c.OneOf("spec.storage.encryption", string(s.Storage.Encryption), string(EncryptionTPM))
	s.Classes.check(c, "spec.classes")
	s.Update.check(c, "spec.update")
	checkHugePages(c, "spec.hugePages", s.HugePages)
	checkSysctls(c, "spec.sysctls", s.Sysctls)
	checkKernelModules(c, "spec.kernelModules", s.KernelModules)
	checkMirrors(c, "spec.images.mirrors", s.Images.Mirrors)
	s.Models.check(c)
	s.Proxy.check(c, "spec.proxy")
	checkCertificates(c, "spec.caCertificates", s.CACertificates)
}
