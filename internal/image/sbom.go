package image

import (
	"cmp"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The parts of an SPDX 2.3 document (ISO/IEC 5962 and its 2.3 revision) that
// describe a file system.
type (
	spdxDocument struct {
		SPDXVersion       string             `json:"spdxVersion"`
		DataLicense       string             `json:"dataLicense"`
		SPDXID            string             `json:"SPDXID"`
		Name              string             `json:"name"`
		Namespace         string             `json:"documentNamespace"`
		CreationInfo      spdxCreation       `json:"creationInfo"`
		DocumentDescribes []string           `json:"documentDescribes"`
		Packages          []spdxPackage      `json:"packages"`
		Files             []spdxFile         `json:"files"`
		Licences          []spdxLicence      `json:"hasExtractedLicensingInfos,omitempty"`
		Relationships     []spdxRelationship `json:"relationships"`
	}
	spdxCreation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	spdxPackage struct {
		SPDXID           string            `json:"SPDXID"`
		Name             string            `json:"name"`
		Version          string            `json:"versionInfo"`
		Download         string            `json:"downloadLocation"`
		FilesAnalyzed    bool              `json:"filesAnalyzed"`
		Verification     *spdxVerification `json:"packageVerificationCode,omitempty"`
		LicenseConcluded string            `json:"licenseConcluded"`
		LicenseDeclared  string            `json:"licenseDeclared"`
		Copyright        string            `json:"copyrightText"`
		Checksums        []spdxChecksum    `json:"checksums,omitempty"`
		ExternalRefs     []spdxExternalRef `json:"externalRefs,omitempty"`
	}
	spdxVerification struct {
		Value string `json:"packageVerificationCodeValue"`
	}
	spdxChecksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	spdxExternalRef struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	// spdxLicence is the text of a licence that is not on SPDX's list.
	spdxLicence struct {
		ID   string `json:"licenseId"`
		Text string `json:"extractedText"`
		Name string `json:"name"`
	}
	spdxFile struct {
		SPDXID           string         `json:"SPDXID"`
		Name             string         `json:"fileName"`
		Checksums        []spdxChecksum `json:"checksums"`
		LicenseConcluded string         `json:"licenseConcluded"`
		Copyright        string         `json:"copyrightText"`
		Comment          string         `json:"comment,omitempty"`
	}
	spdxRelationship struct {
		From string `json:"spdxElementId"`
		Type string `json:"relationshipType"`
		To   string `json:"relatedSpdxElement"`
	}
)

const noAssertion = "NOASSERTION"

// WriteSBOM writes the software bill of materials of the root as SPDX 2.3
// JSON: the package oscine contains every file, and each file names the
// component that it was made from. Two reports of one image give the same
// bytes.
func (r *Report) WriteSBOM(w io.Writer) error {
	name := fmt.Sprintf("oscine-%s-%s", r.Version, r.Arch)
	doc := spdxDocument{
		SPDXVersion: "SPDX-2.3", DataLicense: "CC0-1.0", SPDXID: "SPDXRef-DOCUMENT", Name: name,
		CreationInfo:      spdxCreation{time.Unix(Epoch, 0).UTC().Format(time.RFC3339), []string{"Tool: oscine-" + r.Version}},
		DocumentDescribes: []string{spdxID(oscineID)},
	}
	code, err := r.spdxFiles(&doc)
	if err != nil {
		return fmt.Errorf("write the SBOM: %w", err)
	}
	for _, p := range r.Components {
		pkg := p.spdx(r.Arch)
		if p.ID() == oscineID {
			pkg.FilesAnalyzed, pkg.Verification = true, &spdxVerification{code}
		} else {
			doc.Relationships = append(doc.Relationships, spdxRelationship{spdxID(oscineID), "CONTAINS", spdxID(p.ID())})
		}
		doc.Packages = append(doc.Packages, pkg)
	}
	for _, id := range slices.Sorted(maps.Keys(r.LicenceTexts)) {
		doc.Licences = append(doc.Licences, spdxLicence{id, r.LicenceTexts[id].Text, r.LicenceTexts[id].Name})
	}
	doc.Namespace = "https://oscine.dev/spdx/" + name + "-" + code
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	return enc.Encode(doc)
}

// oscineID is the component that stands for the whole system.
const oscineID = "oscine:oscine"

// spdxFiles describes the files and returns their verification code (SPDX 2.3,
// §7.9): the SHA-1 over all their SHA-1s in order.
func (r *Report) spdxFiles(doc *spdxDocument) (code string, err error) {
	var sums []string
	for i, f := range r.Files {
		if !f.Mode.IsRegular() {
			continue
		}
		data, err := readFile(r.root, f.Path, 1<<30)
		if err != nil {
			return "", err
		}
		one, two := sha1.Sum(data), sha256.Sum256(data)
		id, sum := fmt.Sprintf("SPDXRef-File-%d", i), hex.EncodeToString(one[:])
		sums = append(sums, sum)
		doc.Files = append(doc.Files, spdxFile{
			SPDXID: id, Name: "./" + f.Path, LicenseConcluded: noAssertion, Copyright: noAssertion, Comment: f.Why,
			Checksums: []spdxChecksum{{"SHA1", sum}, {"SHA256", hex.EncodeToString(two[:])}},
		})
		doc.Relationships = append(doc.Relationships, spdxRelationship{spdxID(oscineID), "CONTAINS", id})
		if f.From != "" && f.From != oscineID {
			doc.Relationships = append(doc.Relationships, spdxRelationship{id, "GENERATED_FROM", spdxID(f.From)})
		}
	}
	slices.Sort(sums)
	all := sha1.Sum([]byte(strings.Join(sums, "")))
	return hex.EncodeToString(all[:]), nil
}

// spdxID makes an identifier of letters, digits, points and hyphens.
func spdxID(id string) string {
	var b strings.Builder
	b.WriteString("SPDXRef-")
	for _, c := range []byte(id) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.':
			b.WriteByte(c)
		case c == ':':
			b.WriteByte('-')
		default:
			fmt.Fprintf(&b, "-%02x", c)
		}
	}
	return b.String()
}

func (c Component) spdx(arch string) spdxPackage {
	p := spdxPackage{
		SPDXID: spdxID(c.ID()), Name: c.Name, Version: c.Version, Download: noAssertion,
		LicenseConcluded: noAssertion, LicenseDeclared: cmp.Or(c.Licence, noAssertion), Copyright: noAssertion,
	}
	purl := ""
	switch c.Kind {
	case "deb":
		purl = fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s&distro=trixie", c.Name, url.QueryEscape(c.Version), c.Arch)
		p.Checksums = []spdxChecksum{{"SHA256", c.SHA256}}
	case "go":
		purl = "pkg:golang/" + c.Name + "@" + c.Version
	case "oscine":
		purl = fmt.Sprintf("pkg:generic/oscine@%s?arch=%s", c.Version, arch)
	}
	p.ExternalRefs = []spdxExternalRef{{"PACKAGE-MANAGER", "purl", purl}}
	return p
}
