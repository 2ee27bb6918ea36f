package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"oscine.dev/oscine/internal/client"
	"oscine.dev/oscine/internal/durable"
	"oscine.dev/oscine/internal/object"
	"oscine.dev/oscine/internal/pki"
	"oscine.dev/oscine/internal/printable"
)

func newConfigCommand(env *Env) *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Keys, contexts, and a node's Machine"}
	c.AddCommand(newConfigGenerateCommand(env), newConfigCredentialsCommand(env), newConfigApplyCommand(env),
		newConfigContextsCommand(env), newConfigMergeCommand(env), newConfigFilesCommand(env), newConfigUseCommand(env), newConfigDeleteCommand(env),
		newConfigRenewCommand(env), newConfigCertifyCommand(env), newConfigApproveCommand(env), newConfigCertificatesCommand(env), newConfigRevokeCommand(env), newConfigRestoreCommand(env),
		newConfigShowCommand(env), newConfigHistoryCommand(env), newConfigRollbackCommand(env), newConfigConfirmCommand(env))
	return c
}

// generateOptions are the flags of config generate.
type generateOptions struct {
	dir           string
	address       string
	hosts         []string
	inferencePort int
	metricsPort   int
	withKey       bool
	port          int // 0: not given
	force         bool
}

func newConfigGenerateCommand(env *Env) *cobra.Command {
	var o generateOptions
	c := &cobra.Command{
		Use:   "generate NAME",
		Short: "Make a cluster's keys, a Machine file and a context for it",
		Long: `Make the files of a new node: in the folder given by --output the cluster's
authority (ca.crt, ca.key; kept when there already) and NAME.yaml, the Machine
manifest to boot the node with; and in the client configuration a context NAME
with an admin certificate, which becomes the current one.

The manifest holds no key: the node makes its own, and waits until oscine config
apply has its certificate signed. It recognises nobody but admins of this
authority, who recognise it by the manifest's join token. With --with-key the
node need not wait: the manifest then holds its key, so run this command where
the node will run. The node then listens on the port of --address; without
--with-key on 7443, to which a machine's ports are forwarded, or on --port.

ca.key signs everything: keep it off the node and off-line where you can.`,
		Example: "  oscine config generate edge1 --address 192.0.2.7\n  oscine machine start edge1 --image out/oscine-amd64.img --config-file edge1/edge1.yaml\n\n  oscine config generate host1 --with-key --address 127.0.0.1:17443\n  sudo oscined --hosted --config host1/host1.yaml",
		Args:    exactArgs(1, "NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			return generateConfig(env, args[0], o)
		},
	}
	c.Flags().StringVarP(&o.dir, "output", "o", "", "folder for the files (default ./NAME)")
	c.Flags().StringVar(&o.address, "address", "127.0.0.1", "host or host:port under which clients reach the node's API")
	c.Flags().IntVar(&o.port, "port", 0, "port on which the node's API listens (default 7443, with --with-key that of --address)")
	c.Flags().StringSliceVar(&o.hosts, "host", nil, "further names and addresses for the node's certificate")
	c.Flags().IntVar(&o.inferencePort, "open-inference-port", 0, "also serve inference without client certificates on this port")
	c.Flags().IntVar(&o.metricsPort, "open-metrics-port", 0, "also show metrics without client certificates on this port")
	c.Flags().BoolVar(&o.withKey, "with-key", false, "also put a key for the node into the Machine file, for oscined --hosted on this computer")
	c.Flags().BoolVar(&o.force, "force", false, "replace an existing Machine file and context")
	return c
}

func generateConfig(env *Env, name string, o generateOptions) error {
	if err := object.CheckName(name); err != nil {
		return usageError{fmt.Errorf("the node's name %w", err)}
	}
	if o.dir == "" {
		o.dir = name
	}
	folder, err := filepath.Abs(o.dir)
	if err != nil {
		return err
	}
	host, port, err := splitAddress(o.address)
	if err != nil {
		return err
	}
	listens := o.port
	if listens == 0 && o.withKey {
		if listens, err = strconv.Atoi(port); err != nil {
			return err
		}
	}
	path, err := env.configPath()
	if err != nil {
		return err
	}
	config, err := client.Load(path)
	if err != nil {
		return err
	}
	machineFile := filepath.Join(o.dir, name+".yaml")
	if !o.force {
		if _, err := os.Stat(machineFile); err == nil {
			return fmt.Errorf("%s is there already: choose another name or folder, or replace it with --force", machineFile)
		}
		if _, ok := config.Contexts[name]; ok {
			return fmt.Errorf("context %q is there already in %s: choose another name, or replace it with --force", name, path)
		}
	}
	authority, made, err := loadOrMakeAuthority(o.dir, name)
	if err != nil {
		return err
	}
	text, err := machineManifest(authority, name, append([]string{host, "127.0.0.1", "localhost"}, o.hosts...), map[string]int{"inference": o.inferencePort, "metrics": o.metricsPort}, listens, o.withKey)
	if err != nil {
		return err
	}
	if _, err := object.ParseMachine(bytes.NewReader(text)); err != nil {
		return usageError{fmt.Errorf("nothing was written, because the Machine file would not be valid:\n%w", withoutLines(err))}
	}
	admin, err := pki.NewClient(authority, "admin", pki.Admin, pki.ClientLifetime)
	if err != nil {
		return err
	}
	// All is known to be right: only now are files written.
	if made {
		if err := writeAuthority(o.dir, authority); err != nil {
			return err
		}
	}
	signed, err := admin.TLS()
	if err != nil {
		return err
	}
	if err := noteIssued(o.dir, signed.Leaf); err != nil {
		return err
	}
	if err := durable.WriteFile(machineFile, text, 0o600); err != nil {
		return fmt.Errorf("write the Machine file: %w", err)
	}
	config.Set(name, &client.Context{
		Address: net.JoinHostPort(host, port), ServerName: name,
		CA: string(authority.Certificate), Certificate: string(admin.Certificate), Key: string(admin.Key), Authority: folder,
	})
	if err := config.Save(path); err != nil {
		return err
	}
	fmt.Fprintf(env.Out, "%s\tthe node's Machine manifest (secret)\n%s\tthe cluster's authority (ca.key is secret: keep it off-line)\n%s\tcontext %q, now the current one\n",
		machineFile, filepath.Join(o.dir, "ca.{crt,key}"), path, name)
	return nil
}

// defaultPort is where a node's API listens unless its Machine says otherwise.
const defaultPort = 7443

func splitAddress(address string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(address)
	if err != nil {
		host, port = strings.Trim(address, "[]"), strconv.Itoa(defaultPort)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	_, notIPv6 := netip.ParseAddr(host)
	if host == "" || strings.ContainsAny(host, " /") || err != nil || number == 0 || (strings.Contains(host, ":") && notIPv6 != nil) {
		return "", "", usageError{fmt.Errorf("%q is no address: write HOST or HOST:PORT", address)}
	}
	return host, port, nil
}

// loadOrMakeAuthority keeps an authority that is there: one cluster has many
// nodes. One that it made is not written yet.
func loadOrMakeAuthority(dir, name string) (authority pki.Pair, made bool, err error) {
	authority, err = loadAuthority(dir)
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return authority, false, err
	}
	authority, err = pki.NewAuthority(name)
	return authority, true, err
}

func writeAuthority(dir string, authority pki.Pair) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the output folder: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(dir, "ca.key"), authority.Key, 0o600); err != nil {
		return fmt.Errorf("write the authority: %w", err)
	}
	return durable.WriteFile(filepath.Join(dir, "ca.crt"), authority.Certificate, 0o644)
}

func loadAuthority(dir string) (pki.Pair, error) {
	certificate, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return pki.Pair{}, fmt.Errorf("read the authority: %w", err)
	}
	key, err := os.ReadFile(filepath.Join(dir, "ca.key"))
	if err != nil {
		return pki.Pair{}, fmt.Errorf("ca.crt is in %s, but its key is not: %v", dir, err)
	}
	authority := pki.Pair{Certificate: certificate, Key: key}
	if _, err := authority.TLS(); err != nil {
		return pki.Pair{}, fmt.Errorf("authority in %s: %w", dir, err)
	}
	return authority, nil
}

// requireAuthority is loadAuthority for a command with --authority.
func requireAuthority(dir string) (pki.Pair, error) {
	authority, err := loadAuthority(dir)
	if err != nil {
		return authority, fmt.Errorf("%w: say where oscine config generate put ca.crt and ca.key with --authority DIR", err)
	}
	return authority, nil
}

// machineManifest writes the Machine object of a node with DHCP and the
// defaults.
func machineManifest(authority pki.Pair, name string, hosts []string, open map[string]int, port int, withKey bool) ([]byte, error) {
	api := map[string]any{"ca": string(authority.Certificate)}
	if port != 0 && port != defaultPort {
		api["port"] = port
	}
	if withKey {
		node, err := pki.NewNode(authority, name, hosts)
		if err != nil {
			return nil, err
		}
		api["certificate"], api["key"] = string(node.Certificate), string(node.Key)
	} else {
		api["hosts"], api["joinToken"] = distinct(hosts), pki.NewJoinToken()
	}
	spec := map[string]any{"api": api}
	for endpoint, port := range open {
		if port != 0 {
			spec[endpoint] = map[string]any{"port": port}
		}
	}
	return yaml.Marshal(map[string]any{
		"apiVersion": object.APIVersion, "kind": object.KindMachine,
		"metadata": map[string]any{"name": name}, "spec": spec,
	})
}

// distinct leaves out what came before.
func distinct(hosts []string) []string {
	var kept []string
	for _, host := range hosts {
		if !slices.Contains(kept, host) {
			kept = append(kept, host)
		}
	}
	return kept
}

// contextInfo is a context as config contexts shows it.
type contextInfo struct {
	Name    string `json:"name"`
	Current bool   `json:"current"`
	Address string `json:"address"`
	User    string `json:"user"`
	Role    string `json:"role"`
	Expires string `json:"expires"`
	Serial  string `json:"serial"`
}

func newConfigContextsCommand(env *Env) *cobra.Command {
	var output *string
	c := &cobra.Command{
		Use: "contexts", Aliases: []string{"get-contexts"}, Short: "List the contexts; * marks the current one", Args: exactArgs(0, ""),
		RunE: func(*cobra.Command, []string) error {
			config, err := env.clientConfig()
			if err != nil {
				return err
			}
			infos := []contextInfo{}
			for _, name := range config.Names() {
				ctx := config.Contexts[name]
				user, role, expires, serial := describeCertificate(ctx)
				infos = append(infos, contextInfo{name, name == config.Current, ctx.Address, user, role, expires, serial})
			}
			return listing{infos, config.Names(), func(w io.Writer, _ bool) error { return printContexts(w, infos) }}.print(env.Out, *output)
		},
	}
	output = addOutput(c)
	return c
}

func printContexts(out io.Writer, infos []contextInfo) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "\tNAME\tADDRESS\tUSER\tROLE\tEXPIRES\tSERIAL")
	for _, i := range infos {
		mark := ""
		if i.Current {
			mark = "*"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", mark, i.Name, i.Address, printable.Text(i.User), i.Role, i.Expires, i.Serial)
	}
	return w.Flush()
}

func describeCertificate(ctx *client.Context) (user, role, expires, serial string) {
	leaf, err := leafOf(ctx)
	if err != nil {
		return "-", "unreadable", "-", "-"
	}
	expires = date(leaf)
	if time.Now().After(leaf.NotAfter) {
		expires += " (expired)"
	}
	return leaf.Subject.CommonName, pki.RoleOf(leaf).String(), expires, pki.Serial(leaf)
}

func newConfigUseCommand(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Aliases: []string{"use-context"}, Short: "Make a context the current one", ValidArgsFunction: completeContext(env), Args: exactArgs(1, "NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			return env.editConfig(func(config *client.Config) error {
				if _, _, err := config.Context(args[0]); err != nil {
					return err
				}
				config.Current = args[0]
				fmt.Fprintf(env.Out, "context %q is the current one now\n", args[0])
				return nil
			})
		},
	}
}

func newConfigDeleteCommand(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Aliases: []string{"delete-context"}, Short: "Forget a context and its certificate", ValidArgsFunction: completeContext(env), Args: exactArgs(1, "NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			return env.editConfig(func(config *client.Config) error {
				was := config.Current
				if err := config.Delete(args[0]); err != nil {
					return err
				}
				fmt.Fprintf(env.Out, "context %q deleted\n", args[0])
				if was == args[0] && len(config.Contexts) > 0 {
					fmt.Fprintf(env.Err, "it was the current one: choose another with oscine config use (known: %s)\n", strings.Join(config.Names(), ", "))
				}
				return nil
			})
		},
	}
}

func (e *Env) editConfig(edit func(*client.Config) error) error {
	path, err := e.configPath()
	if err != nil {
		return err
	}
	config, err := client.Load(path)
	if err != nil {
		return err
	}
	if err := edit(config); err != nil {
		return err
	}
	return config.Save(path)
}
