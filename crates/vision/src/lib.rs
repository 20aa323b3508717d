//! Images: readers, augmentation, data sets and models.
