package cli

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/signature"
	"oscine.dev/oscine/internal/signature/keyless"
)

func newModelVerifyCommand(env *Env) *cobra.Command {
	var keys []string
	var at, root string
	var by signature.Signer
	c := &cobra.Command{
		Use: "verify FILE|FOLDER", Short: "Verify who signed a model with OpenSSF model signing",
		Long: `Verify that a model is as it was signed with OpenSSF model signing (model_signing sign), by one of the
keys: a public key, or the certificate of an authority whose certificate signed. Or keyless by an identity: then
--trusted-root is the trusted_root.json of the Sigstore that was used, with its authorities and logs. The signature
is FILE.sig beside a file, and model.sig in a folder. A file that differs, is missing or was not signed is an error.
Hidden files belong to no model. Neither a node nor Sigstore is asked; a node verifies the same for Models with
spec.signedBy.`,
		Example: `  oscine model verify digits.onnx --key rita.pub
  oscine model verify ./saved_model --key ca.crt --signature saved_model.sig
  oscine model verify digits.onnx --identity rita@example.com --issuer https://accounts.google.com --trusted-root trusted_root.json`,
		Args: exactArgs(1, "a model's file or folder"),
		RunE: func(c *cobra.Command, args []string) error {
			trusted, err := readSigners(env, keys, by, root)
			if err != nil {
				return err
			}
			by, err := verifyModel(env, trusted, args[0], at)
			if errors.Is(err, signature.ErrUntrusted) {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(env.Out, "%s is signed by %s\n", args[0], by)
			return nil
		},
	}
	f := c.Flags()
	f.StringArrayVar(&keys, "key", nil, "file with a public key or an authority's certificate in PEM (repeatable)")
	f.StringVar(&by.Identity, "identity", "", "e-mail address or URI of who signed keyless")
	f.StringVar(&by.IdentityRegexp, "identity-regexp", "", "regular expression that is found in it, in place of --identity")
	f.StringVar(&by.Issuer, "issuer", "", "who vouches for the identity, such as https://accounts.google.com")
	f.StringVar(&root, "trusted-root", "", "file with the trusted root of a Sigstore, trusted_root.json")
	f.StringVar(&at, "signature", "", "file with the signature (default: FILE.sig, or model.sig in the folder)")
	return c
}

// readSigners reads those whose signatures count: files with keys, and an identity with the file
// of its trusted root.
func readSigners(env *Env, keys []string, by signature.Signer, rootFile string) (*signature.Keys, error) {
	named := by != signature.Signer{} || rootFile != ""
	if len(keys) == 0 && !named {
		return nil, usageError{errors.New("who signed it? give a --key, or --identity with --issuer and --trusted-root")}
	}
	var signers []signature.Signer
	for _, file := range keys {
		text, err := readBounded(env, file, 64<<10, "more than a key has")
		if err != nil {
			return nil, err
		}
		s := signature.Signer{Key: string(text)}
		if _, err := signature.NewKeys(nil, s); err != nil {
			return nil, usageError{fmt.Errorf("%s %w", file, err)}
		}
		signers = append(signers, s)
	}
	if !named {
		return signature.NewKeys(nil, signers...)
	}
	if rootFile == "" {
		return nil, usageError{errors.New("--identity needs the trusted root of the Sigstore that was used: give its trusted_root.json by --trusted-root; the public one's is in its TUF repository, github.com/sigstore/root-signing")}
	}
	text, err := readBounded(env, rootFile, signature.MaxRoot, "more than a trusted root has")
	if err != nil {
		return nil, err
	}
	root, err := keyless.ParseRoot(text)
	if err != nil {
		return nil, usageError{fmt.Errorf("%s %w", rootFile, err)}
	}
	trusted, err := signature.NewKeys(root, append(signers, by)...)
	if err != nil {
		return nil, usageError{fmt.Errorf("--identity %w", err)}
	}
	return trusted, nil
}

func verifyModel(env *Env, trusted *signature.Keys, path, at string) (by string, err error) {
	source, err := findModel(path)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	beside := path + signature.Suffix
	if info.IsDir() {
		beside = filepath.Join(path, signature.FileName)
	}
	at = cmp.Or(at, beside)
	raw, err := readBounded(env, at, signature.MaxBytes, "more than a signature has")
	var none missing
	if errors.As(err, &none) {
		return "", missing{fmt.Errorf("there is no signature %s: sign the model with model_signing, or name its signature with --signature", at)}
	}
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		if len(source.files) > 0 { // its weights count as much
			return "", fmt.Errorf("the model's weights are in other files, which a signature of %s does not cover: sign and verify its folder", path)
		}
		return trusted.File(path, raw)
	}
	files := map[string]string{}
	for _, f := range source.files {
		files[f.Name] = f.Path
	}
	return trusted.Folder(files, raw)
}
