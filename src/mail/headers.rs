//! Headers seen and edited in place: what is taken out, what is put on top, the rest byte for byte as it came.
