//! The body: which part is its text, its HTML, another form of the same, or a file.
//!
//! An API puts these together in its own way: text, then HTML, then files. So only a structure that says the same is
//! taken apart: what stands elsewhere than it would stand then is a loss, and so is every type that binds its parts
//! more closely. Delimiter lines are found by [`mime::parts`], since `mail-parser` is no scanner to cut by.

use std::borrow::Cow;

use super::super::headers::{BlockEnd, Field, Fields, Separator};
use super::super::mime::{self, Encoding, PARTS_MAX};
use super::super::sealed::is_smime;
use super::typed::Typed;
use super::{Alternative, File, Lossy, decode, shown, words};

/// How deep a multipart may lie in another; the deepest that makes sense (mixed, related, alternative, related) is 4.
const DEPTH_MAX: usize = 8;

/// What the body holds.
#[derive(Debug, Default)]
pub(super) struct Content<'a> {
    pub text: Option<Cow<'a, str>>,
    pub html: Option<Cow<'a, str>>,
    pub alternatives: Vec<Alternative<'a>>,
    pub files: Vec<File<'a>>,
    /// See [`super::Parts::small_loss`].
    pub small_loss: Option<Lossy>,
}

/// Takes apart what the fields of the whole message describe.
pub(super) fn content<'a>(octets: &'a [u8], fields: Fields<'a>) -> Result<Content<'a>, Lossy> {
    let part = Part::read(octets, fields)?;
    let mut walk = Walk { parts: 1, out: Content::default() };
    match part.shape()? {
        Shape::Body(form) => walk.body(&part, form)?,
        Shape::Form => return Err(part.lossy("is neither text nor HTML, and is no attachment")),
        Shape::File if part.is("message/rfc822") => return Err(part.lossy("is the whole message")),
        Shape::File => walk.file(&part, Around::Mixed)?,
        shape => walk.multipart(&part, shape, 1)?,
    }
    let Content { html, files, .. } = &mut walk.out;
    shown::mark(html.as_deref(), files);
    Ok(walk.out)
}

/// A header block and what it describes.
struct Part<'a> {
    kind: Typed,
    encoding: Encoding,
    disposition: Option<Typed>,
    content_id: Option<String>,
    has_location: bool,
    /// One of its fields that only this part has, and that no API has a place for.
    aside: Option<&'static str>,
    body: &'a [u8],
}

/// See [`Part::aside`].
const ASIDE: [&str; 2] = ["Content-Language", "Content-Description"];

/// What a part is for the structure.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Mixed,
    Alternative,
    Related,
    Body(Form),
    /// A text that is neither of the two: another form of the body, such as an invitation.
    Form,
    File,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Html,
}

/// What lies around a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Around {
    Mixed,
    Related,
}

impl<'a> Part<'a> {
    fn read(octets: &'a [u8], mut fields: Fields<'a>) -> Result<Part<'a>, Lossy> {
        let (mut kind, mut disposition) = (None, None);
        let (mut encoding, mut content_id, mut has_location, mut aside) = (None, None, false, None);
        for field in fields.by_ref() {
            if field.is("Content-Type") {
                once(&field, &mut kind, typed(&field)?)?;
            } else if field.is("Content-Disposition") {
                once(&field, &mut disposition, typed(&field)?)?;
            } else if field.is("Content-Transfer-Encoding") {
                once(&field, &mut encoding, mime::encoding(field.value()))?;
            } else if field.is("Content-ID") {
                once(&field, &mut content_id, id(&field)?)?;
            } else if field.is("Content-Location") || field.is("Content-Base") {
                has_location = true;
            } else if let Some(name) = ASIDE.into_iter().find(|name| field.is(name)) {
                aside = Some(name);
            }
        }
        let BlockEnd { body_at, separator, .. } = fields.end();
        if separator == Separator::Missing {
            return Err(Lossy::new("its structure: a header ends at a line that is no field"));
        }
        Ok(Part {
            kind: kind.unwrap_or_else(|| Typed::plain("text/plain")),
            encoding: encoding.unwrap_or(Encoding::Identity),
            disposition,
            content_id,
            has_location,
            aside,
            body: &octets[body_at..],
        })
    }

    fn is(&self, word: &str) -> bool {
        self.kind.word == word
    }

    /// Anything but `inline` is to be treated so (RFC 2183 section 2.8).
    fn is_attached(&self) -> bool {
        self.disposition.as_ref().is_some_and(|d| d.word != "inline")
    }

    fn lossy(&self, why: &str) -> Lossy {
        Lossy(format!("a part of type {}: it {why}", brief(&self.kind.word)))
    }

    fn shape(&self) -> Result<Shape, Lossy> {
        let word = self.kind.word.as_str();
        let sealed = |what: &str| Err(Lossy(format!("its {what}: it is {word}")));
        match word {
            "multipart/signed" => return sealed("signature"),
            "multipart/encrypted" => return sealed("encryption"),
            "application/pkcs7-mime" | "application/x-pkcs7-mime" => {
                return sealed("signature or encryption");
            }
            "application/octet-stream" if self.name().is_some_and(|name| is_smime(&name)) => {
                return Err(Lossy::new("its signature or encryption: a part is named as S/MIME"));
            }
            _ => {}
        }
        match word.split_once('/') {
            Some(("multipart", kind)) => self.multipart_shape(kind),
            Some(("message", "rfc822")) if self.encoding == Encoding::Identity => Ok(Shape::File),
            Some(("message", _)) => Err(self.lossy("cannot be sent as a file")),
            Some(("text", _)) if self.is_attached() => Ok(Shape::File),
            Some(("text", "plain")) => Ok(Shape::Body(Form::Text)),
            Some(("text", "html")) => Ok(Shape::Body(Form::Html)),
            Some(("text", _)) => Ok(Shape::Form),
            Some(_) => Ok(Shape::File),
            None => Err(self.lossy("has no type that can be read")),
        }
    }

    fn multipart_shape(&self, kind: &str) -> Result<Shape, Lossy> {
        if self.is_attached() {
            return Err(self.lossy("is attached as a whole"));
        }
        if self.encoding != Encoding::Identity {
            return Err(self.lossy("is encoded as a whole"));
        }
        match kind {
            "mixed" => Ok(Shape::Mixed),
            "alternative" => Ok(Shape::Alternative),
            "related" => Ok(Shape::Related),
            _ => Err(self.lossy("binds its parts in a way that text, HTML and files do not tell")),
        }
    }

    /// Its name, where it can be read.
    fn name(&self) -> Option<String> {
        let of_disposition = self.disposition.as_ref().and_then(|d| d.file_name("filename").ok().flatten());
        of_disposition.or_else(|| self.kind.file_name("name").ok().flatten())
    }

    /// Without its transfer encoding.
    fn octets(&self) -> Result<Cow<'a, [u8]>, Lossy> {
        let decoded = match &self.encoding {
            Encoding::Identity => return Ok(Cow::Borrowed(self.body)),
            Encoding::Base64 => decode::base64(self.body),
            Encoding::QuotedPrintable => decode::quoted_printable(self.body),
            Encoding::Unknown(name) => {
                return Err(self.lossy(&format!("has the unknown Content-Transfer-Encoding {name}")));
            }
        };
        decoded.map(Cow::Owned).ok_or_else(|| self.lossy("is not what its Content-Transfer-Encoding says"))
    }

    /// As UTF-8; nothing said means ASCII (RFC 2045 section 5.2).
    fn text(&self) -> Result<Cow<'a, str>, Lossy> {
        let charset = self.kind.get("charset").unwrap_or("us-ascii");
        decode::text(self.octets()?, charset)
            .ok_or_else(|| self.lossy(&format!("cannot be read in the charset {}", brief(charset))))
    }
}

fn once<T>(field: &Field<'_>, place: &mut Option<T>, value: T) -> Result<(), Lossy> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Lossy(format!("its structure: a part has two fields {}", super::spelled(field)))),
    }
}

fn typed(field: &Field<'_>) -> Result<Typed, Lossy> {
    words::unfolded(field.value())
        .and_then(|text| Typed::read(&text))
        .ok_or_else(|| Lossy(format!("its structure: {} cannot be read", super::spelled(field))))
}

/// Without the angle brackets.
fn id(field: &Field<'_>) -> Result<String, Lossy> {
    let text = words::unfolded(field.value()).unwrap_or_default();
    let bare = text.strip_prefix('<').and_then(|id| id.strip_suffix('>')).unwrap_or(&text);
    let fits = !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'<' | b'>'));
    fits.then(|| bare.to_owned()).ok_or_else(|| Lossy::new("an image's Content-ID: it cannot be read"))
}

/// What the app wrote, short enough for a log line.
fn brief(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

struct Walk<'a> {
    parts: usize,
    out: Content<'a>,
}

impl<'a> Walk<'a> {
    fn multipart(&mut self, part: &Part<'a>, shape: Shape, depth: usize) -> Result<(), Lossy> {
        let parts = self.children(part, depth)?;
        match shape {
            Shape::Mixed => self.mixed(&parts, depth),
            Shape::Alternative => self.alternative(&parts, depth),
            _ => self.related(part, &parts, depth),
        }
    }

    fn children(&mut self, part: &Part<'a>, depth: usize) -> Result<Vec<Part<'a>>, Lossy> {
        if depth > DEPTH_MAX {
            return Err(Lossy(format!("its structure: parts lie more than {DEPTH_MAX} deep")));
        }
        let boundary = part.kind.get("boundary").unwrap_or_default();
        if boundary.is_empty() {
            return Err(part.lossy("has no boundary"));
        }
        let spans = mime::parts(part.body, &(0..part.body.len()), boundary.as_bytes());
        self.parts += spans.len();
        if self.parts > PARTS_MAX {
            return Err(Lossy(format!("its structure: it has more than {PARTS_MAX} parts")));
        }
        if spans.is_empty() {
            return Err(part.lossy("has no parts"));
        }
        let read = |span: std::ops::Range<usize>| {
            let octets = &part.body[span];
            Part::read(octets, Fields::new(octets, 0))
        };
        let parts: Vec<Part<'a>> = spans.into_iter().map(read).collect::<Result<_, _>>()?;
        if let Some((part, name)) = parts.iter().find_map(|part| Some((part, part.aside?))) {
            let lost = || Lossy(format!("the {name} of a part of type {}", brief(&part.kind.word)));
            self.out.small_loss.get_or_insert_with(lost);
        }
        Ok(parts)
    }

    /// The body first, then files.
    fn mixed(&mut self, parts: &[Part<'a>], depth: usize) -> Result<(), Lossy> {
        for (n, part) in parts.iter().enumerate() {
            match part.shape()? {
                Shape::File => self.file(part, Around::Mixed)?,
                Shape::Body(form) if n == 0 => self.body(part, form)?,
                Shape::Body(_) if is_blank(&part.text()?) => {}
                Shape::Body(_) | Shape::Form => {
                    return Err(part.lossy("is shown after the parts before it, and is no attachment"));
                }
                shape if n == 0 => self.multipart(part, shape, depth + 1)?,
                _ => return Err(part.lossy("has its place among the parts")),
            }
        }
        Ok(())
    }

    /// Plain text, then HTML; other forms before and after the HTML.
    fn alternative(&mut self, parts: &[Part<'a>], depth: usize) -> Result<(), Lossy> {
        let mut has_html = false;
        for (n, part) in parts.iter().enumerate() {
            match part.shape()? {
                Shape::Body(Form::Text) if n == 0 => self.body(part, Form::Text)?,
                Shape::Body(Form::Html) if !has_html => {
                    has_html = true;
                    self.body(part, Form::Html)?;
                }
                Shape::Related if !has_html => {
                    has_html = true;
                    let parts = self.children(part, depth + 1)?;
                    self.html_with_images(part, &parts)?;
                }
                Shape::Form => {
                    let form = self.form(part, !has_html)?;
                    self.out.alternatives.push(form);
                }
                _ => return Err(part.lossy("has its place in the order of alternatives")),
            }
        }
        // What stands before an HTML that never comes stands after it as well.
        if !has_html {
            self.out.alternatives.iter_mut().for_each(|form| form.before_html = false);
        }
        Ok(())
    }

    /// HTML, or alternatives with one, and what it shows.
    fn related(&mut self, whole: &Part<'a>, parts: &[Part<'a>], depth: usize) -> Result<(), Lossy> {
        let Some((root, rest)) = parts.split_first() else { return Err(whole.lossy("has no parts")) };
        if root.shape()? != Shape::Alternative {
            return self.html_with_images(whole, parts);
        }
        root_is_first(whole, root)?;
        let forms = self.children(root, depth + 1)?;
        for form in &forms {
            if form.shape()? == Shape::Related {
                return Err(form.lossy("lies in another of its kind"));
            }
        }
        self.alternative(&forms, depth + 1)?;
        rest.iter().try_for_each(|part| self.shown(part))
    }

    fn html_with_images(&mut self, whole: &Part<'a>, parts: &[Part<'a>]) -> Result<(), Lossy> {
        let Some((root, rest)) = parts.split_first() else { return Err(whole.lossy("has no parts")) };
        if root.shape()? != Shape::Body(Form::Html) {
            return Err(whole.lossy("has another root than HTML"));
        }
        root_is_first(whole, root)?;
        self.body(root, Form::Html)?;
        rest.iter().try_for_each(|part| self.shown(part))
    }

    /// What lies beside the HTML in multipart/related.
    fn shown(&mut self, part: &Part<'a>) -> Result<(), Lossy> {
        if part.has_location && part.content_id.is_none() {
            return Err(part.lossy("is referred to by its Content-Location"));
        }
        match part.shape()? {
            Shape::File => self.file(part, Around::Related),
            Shape::Body(_) | Shape::Form if part.content_id.is_some() => self.file(part, Around::Related),
            _ => Err(part.lossy("lies in multipart/related without a Content-ID")),
        }
    }

    fn body(&mut self, part: &Part<'a>, form: Form) -> Result<(), Lossy> {
        if part.kind.says("format", "flowed") {
            return Err(part.lossy("has format=flowed, by which its lines are joined"));
        }
        if part.has_location {
            return Err(part.lossy("has a Content-Location that its links begin from"));
        }
        let text = Some(part.text()?).filter(|text| !is_blank(text));
        match form {
            Form::Text => self.out.text = text,
            Form::Html => self.out.html = text,
        }
        Ok(())
    }

    fn form(&mut self, part: &Part<'a>, before_html: bool) -> Result<Alternative<'a>, Lossy> {
        let content = part.text()?;
        let mut kind = part.kind.clone();
        kind.set("charset", "utf-8");
        let written = kind.written_without(&[]);
        let content_type = written.ok_or_else(|| part.lossy("has a parameter beyond ASCII"))?;
        Ok(Alternative { content_type, content, before_html })
    }

    fn file(&mut self, part: &Part<'a>, around: Around) -> Result<(), Lossy> {
        let bad_name = |_| part.lossy("has a name that cannot be read");
        let disposition = part.disposition.as_ref();
        let name = match disposition.map(|d| d.file_name("filename")).transpose().map_err(bad_name)?.flatten()
        {
            Some(name) => name,
            None => {
                let named = part.kind.file_name("name").map_err(bad_name)?;
                named.unwrap_or_else(|| made_up(&part.kind.word, self.out.files.len() + 1))
            }
        };
        let kind = part.kind.written_without(&["name", "boundary"]);
        let content_type = kind.ok_or_else(|| part.lossy("has a parameter beyond ASCII"))?;
        let inline = match (around, disposition) {
            (Around::Related, _) if part.content_id.is_some() => true,
            (_, Some(d)) => d.word == "inline",
            (_, None) => part.content_id.is_some(),
        };
        self.out.files.push(File {
            name,
            content_type,
            octets: part.octets()?,
            inline,
            content_id: part.content_id.clone(),
        });
        Ok(())
    }
}

fn root_is_first(whole: &Part<'_>, root: &Part<'_>) -> Result<(), Lossy> {
    let start = whole.kind.get("start").map(|start| start.trim_matches(['<', '>', ' ']));
    match start {
        Some(start) if root.content_id.as_deref() != Some(start) => {
            Err(whole.lossy("begins with another part than its first"))
        }
        _ => Ok(()),
    }
}

fn is_blank(text: &str) -> bool {
    text.chars().all(char::is_whitespace)
}

/// A name for a file that has none: APIs insist on one.
fn made_up(kind: &str, number: usize) -> String {
    let ending = match kind {
        "application/json" => "json",
        "application/pdf" => "pdf",
        "application/xml" | "text/xml" => "xml",
        "application/zip" => "zip",
        "image/gif" => "gif",
        "image/jpeg" => "jpg",
        "image/png" => "png",
        "image/svg+xml" => "svg",
        "image/webp" => "webp",
        "message/rfc822" => "eml",
        "text/calendar" => "ics",
        "text/css" => "css",
        "text/csv" => "csv",
        "text/html" => "html",
        "text/plain" => "txt",
        "text/vcard" => "vcf",
        _ => "bin",
    };
    format!("attachment-{number}.{ending}")
}
