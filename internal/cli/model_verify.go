package cli

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"oscine.dev/oscine/internal/signature"
)

func newModelVerifyCommand(env *Env) *cobra.Command {
	var keys []string
	var at string
	c := &cobra.Command{
		Use: "verify FILE|FOLDER --key KEY", Short: "Verify who signed a model with OpenSSF model signing",
		Long: `Verify that a model is as it was signed with OpenSSF model signing (model_signing sign key), by one of the
keys: a public key, or the certificate of an authority whose certificate signed. The signature is FILE.sig
beside a file, and model.sig in a folder. A file that differs, is missing or was not signed is an error. Hidden files
belong to no model. No node is asked; a node verifies the same for Models with spec.signedBy.`,
		Example: "  oscine model verify digits.onnx --key rita.pub\n  oscine model verify ./saved_model --key ca.crt --signature saved_model.sig",
		Args:    exactArgs(1, "a model's file or folder"),
		RunE: func(c *cobra.Command, args []string) error {
			texts := make([]string, len(keys))
			for i, file := range keys {
				text, err := readBounded(env, file, 64<<10, "more than a key has")
				if err != nil {
					return err
				}
				texts[i] = string(text)
				if _, err := signature.ParseKeys(texts[i]); err != nil {
					return usageError{fmt.Errorf("%s %w", file, err)}
				}
			}
			trusted, err := signature.ParseKeys(texts...)
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
	c.Flags().StringArrayVar(&keys, "key", nil, "file with a public key or an authority's certificate in PEM (repeatable)")
	c.Flags().StringVar(&at, "signature", "", "file with the signature (default: FILE.sig, or model.sig in the folder)")
	_ = c.MarkFlagRequired("key")
	return c
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
