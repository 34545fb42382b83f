//! MIME seen as parts, and the one change we make to them: an over-long text line made quoted-printable.
