"""Service: a model beside the reference implementation of its checkpoint, part by part: where do they depart first?"""
